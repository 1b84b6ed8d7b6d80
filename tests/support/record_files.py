"""Files of records, and what is read from them."""

import bz2
import gzip
import json
import lzma

import pytest

from rlhf_lib.data.load.files import parse_line, read

RECORDS = [
    {"prompt": "Q1?", "score": 1.5},
    {"prompt": "é\u2028\n,\t\"'", "score": None},
    {"prompt": "", "score": -2e-7},
]


def zstandard(data):
    import pyarrow

    return pyarrow.compress(data, codec="zstd", asbytes=True)


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard}


def write(folder, name, data):
    """Write text or bytes, compressed as the name says."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    data = data if isinstance(data, bytes) else data.encode()
    path.write_bytes(COMPRESS.get(path.suffix, bytes)(data))
    return str(path)


def jsonl(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def table(rows, delimiter=","):
    """Rows as CSV text, header first."""
    quoted = [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    return "\r\n".join(quoted) + "\r\n"


def write_parquet(path, records, **options):
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(records), path, **options)
    return str(path)


def write_arrow(path, records, opened="new_stream"):
    import pyarrow
    from pyarrow import ipc

    table = pyarrow.Table.from_pylist(records)
    with getattr(ipc, opened)(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return str(path)


def values(path, **options):
    """The values that are read, those of lines parsed."""
    return [
        parse_line(record.place, record.value) if isinstance(record.value, bytes) else record.value
        for record in read(str(path), **options)
    ]


def fault(path):
    """The one line that reading a file ends in, without the path before it."""
    with pytest.raises(SystemExit) as error:
        values(path)
    text = str(error.value)
    assert len(text.splitlines()) == 1
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")
