"""The records of the user's own files, one after the other: no file is ever in memory as a whole."""

from __future__ import annotations

import codecs
import glob
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain, islice
from pathlib import PurePath
from typing import IO, Any

from rlhf_lib.data.load import compression
from rlhf_lib.data.load.arrow_table import arrow_records, parquet_records
from rlhf_lib.data.load.csv_table import table_records
from rlhf_lib.data.load.json_text import MAX_RECORD, JsonText, not_utf8
from rlhf_lib.data.load.reader import Record
from rlhf_lib.data.load.split_names import held_out_files, is_held_out

MOST_NAMES = 1000  # that are looked at in a folder
RECORD = {"prompt", "messages", "chosen"}  # columns that lists of records are not called

Parser = Callable[[str, IO[bytes]], Iterator[Record]]

HEADS = {
    codecs.BOM_UTF16_LE: "is UTF-16; save it as UTF-8",
    codecs.BOM_UTF16_BE: "is UTF-16; save it as UTF-8",
    b"version https://git-lfs": "is a pointer of Git LFS, not the file; get the file by git lfs pull",
    b"PK\x03\x04": "is a ZIP archive or an Excel workbook; unpack it, or save the sheet as CSV",
    **{head: f"is compressed; end its name in {suffix}" for head, suffix in compression.HEADS.items()},
}


def read(pattern: str, max_records: int | None = None) -> Iterator[Record]:
    """The records of a file, or of each file that a glob matches, by name; `max_records` of each.

    Lines of JSON are not parsed: the value is the bytes of the line (see `parse_line`). Other values are what the
    file holds: a dict from column to text for CSV and TSV. Raises a `SystemExit` of one line for a faulty file, at once
    where it is missing or of an unknown kind, and else when the records before the fault have been read.
    """
    parsers = {path: _parser(path) for path in _paths(pattern)}
    held_out = held_out_files(parsers)
    return chain.from_iterable(
        _records(path, parser, max_records, path in held_out) for path, parser in parsers.items()
    )


def is_untyped(path: str) -> bool:
    """Whether `read` knows a file of this name as text, whose values have no types of their own."""
    inner = path.lower().removesuffix(compression.suffix(path))
    return inner.endswith(tuple(PARSERS.keys() - TYPED.keys()))


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
    packed = compression.suffix(path)
    inner = path.lower().removesuffix(packed)
    for suffix, parser in PARSERS.items():
        # a Parquet file is compressed within
        if inner.endswith(suffix) and not (packed and suffix in TYPED):
            return parser
    known, after = ", ".join(PARSERS), ", ".join(compression.OPENERS)
    raise SystemExit(f"{path}: unknown kind of file; its name must end in one of {known} (or {after} after it)")


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
        raise SystemExit(f"{path}: is a folder; name its files, such as {glob_in(path)}")
    if not stat.S_ISREG(mode):
        raise SystemExit(f"{path}: is not a regular file; copy what it holds into one")


def glob_in(folder: str) -> str:
    """A glob for what a folder holds that `read` can read: for tables, not for JSON that describes them."""
    names = list(islice(glob.iglob("**", root_dir=folder, recursive=True), MOST_NAMES))
    for kind in reversed(PARSERS):
        for name in names:
            if kind in (found := PurePath(name.lower())).suffixes:
                return os.path.join(folder, "**" * (len(found.parts) > 1), f"*{kind}{compression.suffix(name)}")
    return os.path.join(folder, "*.jsonl")


def _records(path: str, parser: Parser, max_records: int | None, held_out: bool) -> Iterator[Record]:
    found = False
    packed = compression.suffix(path)
    try:
        with compression.open_bytes(path) as file:
            _check_head(path, file)
            for record in islice(parser(path, file), max_records):
                yield record._replace(test=True) if held_out else record
                found = True
    except (OSError, *compression.FAULTS) as error:
        if packed and compression.is_fault(error):
            raise SystemExit(
                f"{path}: not a whole {packed} file; copy it once more, or take {packed} off its name if it is not "
                "compressed"
            ) from None
        detail = error.strerror if isinstance(error, OSError) else None
        raise SystemExit(f"{path}: cannot be read: {detail or error}; check its permissions") from None
    if not found:
        raise SystemExit(f"{path}: holds no records; fill it or leave it out")


def _check_head(path: str, file: IO[bytes]) -> None:
    head = file.read(max(map(len, HEADS)))
    file.seek(0)
    for start, what in HEADS.items():
        if head.startswith(start):
            raise SystemExit(f"{path}: {what}")


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
    return table_records(path, _csv_lines(path, file), delimiter)


def _csv_lines(path: str, file: IO[bytes]) -> Iterator[str]:
    for place, line in _lines(path, file):
        if b"\0" in line:
            raise SystemExit(f"{place}: a NUL byte; save the file as UTF-8 text")
        yield _decode(line, place)


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
    kinds = {key: _kind(text) for key in text.members()}
    if text.peek():
        file.seek(0)
        yield from _json_lines(path, file)
        return
    keys = _keys_of_rows(path, kinds)
    text = JsonText(path, file)
    if not keys and all(map(str.isdigit, kinds)):  # pandas' to_json(orient="index")
        yield from (Record(f"{path}: row {key}", text.value()) for key in text.members())
        return
    if not keys:
        yield Record(f"{path}: row 1", text.value())
        return
    for key in text.members():
        if key not in keys:
            text.value()
            continue
        named = f"{key} " if len(keys) > 1 else ""
        for number, value in enumerate(text.items(), start=1):
            yield Record(f"{path}: {named}row {number}", value, is_held_out(key) is True)


def _keys_of_rows(path: str, kinds: Mapping[str, str]) -> list[str]:
    """The keys of an object whose values are the records; none where it is a record itself."""
    if set(kinds.values()) == {"column"}:
        raise SystemExit(
            f"{path}: holds columns, not rows; export it as a list of objects (pandas: to_json(orient='records'))"
        )
    if RECORD & kinds.keys():
        return []
    keys = [key for key, kind in kinds.items() if kind == "rows"]
    if len(keys) > 1 and None in map(is_held_out, keys):
        raise SystemExit(
            f"{path}: has several lists of objects ({', '.join(map(repr, keys))}); give each a file of its own, or "
            "name them train, validation and test"
        )
    return keys


def _items(text: JsonText) -> Iterator[Record]:
    return (Record(text.place, value) for value in text.items())


def _kind(text: JsonText) -> str:
    """Read the value that comes next: "rows" for a list with objects in it, "column" for one of other values."""
    if text.peek() != "[":
        value = text.value()
        # pandas' to_json: from the number of the row to its value
        return "column" if isinstance(value, dict) and value and all(key.isdigit() for key in value) else "value"
    return "rows" if dict in {type(item) for item in text.items()} else "column"


TYPED: dict[str, Parser] = {".parquet": parquet_records, ".arrow": arrow_records, ".feather": arrow_records}
PARSERS: dict[str, Parser] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": partial(_csv, delimiter=","),
    ".tsv": partial(_csv, delimiter="\t"),
    **TYPED,
}
