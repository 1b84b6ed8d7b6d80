"""The records of the user's own files, one after the other: no file is ever in memory as a whole."""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, islice
from typing import IO, Any

from rlhf_lib.data.load.json_text import MAX_RECORD, JsonText, not_utf8
from rlhf_lib.data.load.reader import Record

PARQUET_ROWS = 1000  # of a batch
NAMES_RULE = "each column needs a name of its own (in CSV and TSV the first row has them)"

Parser = Callable[[str, IO[bytes]], Iterator[Record]]

HEADS = {
    codecs.BOM_UTF16_LE: "is UTF-16; save it as UTF-8",
    codecs.BOM_UTF16_BE: "is UTF-16; save it as UTF-8",
    b"\x1f\x8b": "is compressed with gzip; end its name in .gz",
}


def read(pattern: str, max_records: int | None = None) -> Iterator[Record]:
    """The records of a file, or of each file that a glob matches, by name; `max_records` of each.

    Lines of JSON are not parsed: the value is the bytes of the line (see `parse_line`). Other values are what the
    file holds: a dict from column to text for CSV and TSV. Raises a `SystemExit` of one line for a faulty file, at once
    where it is missing or of an unknown kind, and else when the records before the fault have been read.
    """
    parsers = [(path, _parser(path)) for path in _paths(pattern)]
    return chain.from_iterable(_records(path, parser, max_records) for path, parser in parsers)


def parse_line(place: str, line: bytes) -> Any:
    """The JSON value of a line; a `SystemExit` of one line, which begins with `place`, where there is none."""
    try:
        return json.loads(_decode(line, place))
    except RecursionError:
        raise SystemExit(f"{place}: lists or objects are nested too deeply") from None
    except ValueError as error:
        raise SystemExit(
            f"{place}: not JSON ({error}); each line must be one JSON object (a JSON array goes into a .json file)"
        ) from None


def _paths(pattern: str) -> list[str]:
    """The files that `pattern` names, sorted."""
    pattern = os.path.expanduser(pattern)
    # a file's own name may hold the characters of a glob
    if os.path.lexists(pattern) or not glob.has_magic(pattern):
        return [pattern]
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path))
    if not paths:
        raise SystemExit(f"{pattern}: no file matches; correct the pattern ('**' matches folders of any depth)")
    return paths


def _parser(path: str) -> Parser:
    """How to read `path`, by its suffix."""
    _check_file(path)
    name = path.lower()
    for suffix, parser in PARSERS.items():
        # a Parquet file is compressed within
        if name.endswith(suffix) or (name.endswith(suffix + ".gz") and parser is not _parquet):
            return parser
    known = ", ".join(PARSERS)
    raise SystemExit(f"{path}: unknown kind of file; its name must end in one of {known} (or .gz after it)")


def _check_file(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if os.path.islink(path):
            raise SystemExit(f"{path}: a link to {os.readlink(path)}, which does not exist; fix it") from None
        raise SystemExit(f"{path}: no such file; correct the path") from None
    except OSError as error:
        raise SystemExit(f"{path}: cannot be read: {error.strerror}; check its permissions") from None
    except ValueError as error:
        raise SystemExit(f"{path!r}: no file can have this name: {error}") from None
    if stat.S_ISDIR(mode):
        raise SystemExit(f"{path}: is a folder; name its files, such as {os.path.join(path, '*.jsonl')}")
    if not stat.S_ISREG(mode):
        raise SystemExit(f"{path}: is not a regular file; copy what it holds into one")


def _records(path: str, parser: Parser, max_records: int | None) -> Iterator[Record]:
    found = False
    try:
        with _opener(path)(path, "rb") as file:
            _check_head(path, file)
            for record in islice(parser(path, file), max_records):
                yield record
                found = True
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise SystemExit(
            f"{path}: not a whole gzip file; copy it once more, or take .gz off its name if it is not compressed"
        ) from None
    except OSError as error:
        raise SystemExit(f"{path}: cannot be read: {error.strerror or error}; check its permissions") from None
    if not found:
        raise SystemExit(f"{path}: holds no records; fill it or leave it out")


def _opener(path: str) -> Any:
    return gzip.open if path.lower().endswith(".gz") else open


def _check_head(path: str, file: IO[bytes]) -> None:
    head = file.read(2)
    file.seek(0)
    if head in HEADS:
        raise SystemExit(f"{path}: {HEADS[head]}")


def _lines(path: str, file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """The place of each line and the line."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_RECORD + 1), b""), start=1):
        place = f"{path}: line {number}"
        if len(line) > MAX_RECORD:
            raise SystemExit(f"{place}: longer than {MAX_RECORD} bytes; is it the text file that its name says?")
        yield place, line.removeprefix(codecs.BOM_UTF8)  # in the middle too: of files put one after the other


def _decode(line: bytes, place: str) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise SystemExit(not_utf8(place, error)) from None


def _json_lines(path: str, file: IO[bytes]) -> Iterator[Record]:
    return (Record(place, line) for place, line in _lines(path, file) if line.strip())


def _csv(path: str, file: IO[bytes], delimiter: str) -> Iterator[Record]:
    rows = _csv_rows(path, file, delimiter)
    header = next(rows, [])
    _check_header(path, header)
    for number, row in enumerate(rows, start=1):
        place = f"{path}: row {number}"
        if len(row) != len(header):
            what = "tabs" if delimiter == "\t" else "commas"
            raise SystemExit(
                f"{place}: {len(row)} fields where the header has {len(header)}; quote fields that hold {what}"
            )
        yield Record(place, dict(zip(header, row, strict=True)))


def _csv_rows(path: str, file: IO[bytes], delimiter: str) -> Iterator[list[str]]:
    """The fields of the header and of each row; blank lines between them are left out."""
    csv.field_size_limit(MAX_RECORD)
    # strict: without it a quote that is never closed makes one field of the rest of the file
    rows = csv.reader(_csv_lines(path, file), delimiter=delimiter, strict=True)
    number = 0
    try:
        for row in rows:
            if row:
                yield row
                number += 1
    except csv.Error as error:
        place = f"row {number}" if number else "header"
        raise SystemExit(f"{path}: {place}: {error}; check its quotes and line ends") from None


def _csv_lines(path: str, file: IO[bytes]) -> Iterator[str]:
    for place, line in _lines(path, file):
        if b"\0" in line:
            raise SystemExit(f"{place}: a NUL byte; save the file as UTF-8 text")
        yield _decode(line, place)


def _check_header(path: str, header: list[str]) -> None:
    """A header with a name of its own for each column; none at all is a file without records."""
    for number, name in enumerate(header, start=1):
        if not name.strip() and number > 1:  # pandas writes its index as a first column without a name
            raise SystemExit(f"{path}: header: column {number} has no name; {NAMES_RULE}")
        if name in header[: number - 1]:
            raise SystemExit(f"{path}: header: two columns are called {name!r}; {NAMES_RULE}")


def _parquet(path: str, file: IO[bytes]) -> Iterator[Record]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        table = parquet.ParquetFile(file)
        _check_header(path, table.schema_arrow.names)
        for batch in table.iter_batches(PARQUET_ROWS):
            for value in batch.to_pylist():
                number += 1
                yield Record(f"{path}: row {number}", value)
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        detail = " ".join(str(error).split())[:200]
        raise SystemExit(f"{path}: cannot be read as Parquet ({detail}); copy or export it again") from None


def _json(path: str, file: IO[bytes]) -> Iterator[Record]:
    """The items of an array, or of the one list of objects in an object; or JSON Lines under this name."""
    text = JsonText(path, file)
    start = text.peek()
    if start == "[":
        yield from _items(text)
        if text.peek():
            raise text.fault("more follows after the end of the array")
    elif start == "{":
        yield from _json_object(path, file)
    elif start:
        raise SystemExit(f"{path}: holds no JSON objects; it must be an array of them, or have one on each line")


def _json_object(path: str, file: IO[bytes]) -> Iterator[Record]:
    text = JsonText(path, file)
    keys = [key for key in text.members() if _is_object_list(text)]
    if text.peek():
        file.seek(0)
        yield from _json_lines(path, file)
        return
    if len(keys) > 1:
        raise SystemExit(
            f"{path}: has several lists of objects ({', '.join(map(repr, keys))}); give each a file of its own"
        )
    text = JsonText(path, file)
    if not keys:
        yield Record(f"{path}: row 1", text.value())
        return
    for key in text.members():
        if key == keys[0]:
            yield from _items(text)
        else:
            _is_object_list(text)


def _items(text: JsonText) -> Iterator[Record]:
    return (Record(text.place, value) for value in text.items())


def _is_object_list(text: JsonText) -> bool:
    """Read the value that comes next, and say whether it is a list with objects in it."""
    if text.peek() != "[":
        text.value()
        return False
    return dict in {type(item) for item in text.items()}


PARSERS: dict[str, Parser] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": partial(_csv, delimiter=","),
    ".tsv": partial(_csv, delimiter="\t"),
    ".parquet": _parquet,
}
