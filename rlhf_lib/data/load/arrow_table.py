"""Tables whose columns have types, Parquet and Arrow, as records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from rlhf_lib.data.load.csv_table import check_header
from rlhf_lib.data.load.reader import Record

PARQUET_ROWS = 1000  # of a batch
FEATHER = b"ARROW1"

Batches = tuple[list[str], Iterable[Any]]  # the names of the columns, and batches of rows as pyarrow has them


def parquet_records(path: str, file: IO[bytes]) -> Iterator[Record]:
    """The rows of a Parquet file; a `SystemExit` of one line where it is none."""
    return _records(path, file, "Parquet", _parquet)


def arrow_records(path: str, file: IO[bytes]) -> Iterator[Record]:
    """The rows of a stream, as `Dataset.save_to_disk` writes it, or of a Feather file; a `SystemExit` of one line where
    it is none."""
    return _records(path, file, "Arrow", _arrow)


def with_texts(rows: Iterable[Any], schema: Any) -> Iterable[Any]:
    """Rows of a pyarrow schema, with texts in the place of bytes that are UTF-8: some programs write texts as bytes."""
    return map(_with_texts, rows) if "binary" in str(schema) else rows


def _with_texts(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, list):
        return [_with_texts(item) for item in value]
    return {key: _with_texts(item) for key, item in value.items()} if isinstance(value, dict) else value


def _parquet(file: IO[bytes]) -> Batches:
    from pyarrow import parquet

    table = parquet.ParquetFile(file)
    return table.schema_arrow.names, table.iter_batches(PARQUET_ROWS)


def _arrow(file: IO[bytes]) -> Batches:
    from pyarrow import ipc

    if file.read(len(FEATHER)) == FEATHER:
        table = ipc.open_file(file)
        return table.schema.names, map(table.get_batch, range(table.num_record_batches))
    file.seek(0)
    stream = ipc.open_stream(file)
    return stream.schema.names, stream


def _records(path: str, file: IO[bytes], kind: str, opened: Callable[[IO[bytes]], Batches]) -> Iterator[Record]:
    import pyarrow

    number = 0
    try:
        names, batches = opened(file)
        check_header(path, names)
        for batch in batches:
            for value in with_texts(batch.to_pylist(), batch.schema):
                number += 1
                yield Record(f"{path}: row {number}", value)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        detail = " ".join(str(error).split())[:200]
        raise SystemExit(f"{path}: cannot be read as {kind} ({detail}); copy or export it again") from None
