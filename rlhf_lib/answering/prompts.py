"""The prompts of a file, each with its reference answer where the file has one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from rlhf_lib.common.rows import Message, Row, is_blank
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.data.load import files
from rlhf_lib.data.load.columns import ALWAYS, parse
from rlhf_lib.data.load.fields import values
from rlhf_lib.data.load.params import COLUMNS, SourceParams
from rlhf_lib.data.load.reader import Record, Rejected

REFERENCES = ("reference", "answer")  # names that a column of references may have, beside those of answers in data
TEXT = ".txt"


class Asked(NamedTuple):
    """A prompt of a file.

    place: for people, such as `prompts.csv: row 7`. number: from 1. reference: None where there is none. columns: what
    else the record has, for reward functions.
    """

    place: str
    number: int
    prompt: list[Message]
    reference: str | None
    columns: dict[str, Any]


def read(
    path: str, prompt_column: str | None = None, reference_column: str | None = None, most: int | None = None
) -> list[Asked]:
    """The prompts of a file, at most `most`; a `SystemExit` of one line for a file or a record that has none.

    Columns are known by the names of docs/data.md, and by `reference` and `answer`, unless they are given. A text file
    has a prompt on each line that is not blank.
    """
    records = _lines(path) if path.lower().endswith(TEXT) else _records(path)
    columns = {"prompt": prompt_column, "reference": reference_column}
    asked = [_asked(record, number, columns) for number, record in enumerate(islice(records, most), start=1)]
    if not asked:
        raise ParamsError(f"{path}: holds no prompts; write one on each line")
    return asked


def _records(path: str) -> Iterator[Record]:
    try:
        for record in files.read(path):
            value = files.parse_line(record.place, record.value) if isinstance(record.value, bytes) else record.value
            if isinstance(value, str):  # a text on a line of JSON
                value = {"prompt": value}
            yield record._replace(value=value)
    except SystemExit as fault:
        if isinstance(fault.code, str) and "unknown kind of file" in fault.code:
            raise ParamsError(f"{fault.code}, or {TEXT} with a prompt on each line") from None
        raise


def _lines(path: str) -> Iterator[Record]:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            for number, line in enumerate(file, start=1):
                place = f"{path}: line {number}"
                try:
                    text = line.decode("utf-8-sig").strip()
                except UnicodeDecodeError as error:
                    raise ParamsError(
                        f"{place}: not UTF-8 (at byte {error.start + 1}); save the file as UTF-8"
                    ) from None
                if text:
                    yield Record(place, {"prompt": text})
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read: {error.strerror}; correct the path") from None


def _asked(record: Record, number: int, given: Mapping[str, str | None]) -> Asked:
    raw = record.value
    if not isinstance(raw, dict):
        raise ParamsError(f"{record.place}: must be an object with a prompt, or a text")
    for name, column in given.items():
        if column is not None and column not in raw:
            raise ParamsError(f"{record.place}: no column {column!r} (--{name}_column); it has {_listed(raw)}")
    found = _row(raw, given)
    if isinstance(found, Rejected):
        raise ParamsError(f"{record.place}: {_told(found, raw)}")
    others = {name: value for name, value in raw.items() if name not in ("prompt", "messages")}
    return Asked(record.place, number, found["prompt"], _reference(raw, found, given["reference"]), others)


def _row(raw: dict[str, Any], given: Mapping[str, str | None]) -> Row | Rejected:
    """The record as a row; without its answers where these are the fault, for then there is no reference."""
    columns: dict[str, str | list[str] | None] = {"split": None}
    if given["prompt"]:
        columns["prompt"] = given["prompt"]
    source = SourceParams(reader="file", path="prompts", columns=columns)
    found = list(parse(raw, source))
    row = next((item for item in found if not isinstance(item, Rejected)), None)
    if row is not None:
        return row
    answers = {*COLUMNS} - {*ALWAYS}
    alone = {name: value for name, value in raw.items() if name not in answers or name == given["prompt"]}
    again = list(parse(alone, source)) if "prompt" in values(alone, columns) else found
    return next((item for item in again if not isinstance(item, Rejected)), None) or next(
        item for item in again if isinstance(item, Rejected)
    )


def _reference(raw: Mapping[str, Any], row: Row, column: str | None) -> str | None:
    """The text of the column of references; else the first of the row's best answers."""
    name = column or next((name for name in REFERENCES if name in raw), None)
    if name is not None:
        text = raw[name]
        return text if isinstance(text, str) and not is_blank(text) else None
    scored = [response for response in row["responses"] if response["score"] is not None]
    if scored:
        return max(scored, key=lambda response: response["score"] or 0.0)["content"]
    return row["responses"][0]["content"] if row["responses"] else None


def _listed(raw: Mapping[str, Any]) -> str:
    return ", ".join(map(str, raw))[:150]


def _told(fault: Rejected, raw: Mapping[str, Any]) -> str:
    """Why a record has no prompt, and what to do."""
    if fault.reason in ("missing_column", "no_known_column"):
        return f"no prompt in it; its columns are {_listed(raw)}: name the prompt's with --prompt_column"
    text = fault.text.partition("; set load.sources")[0]
    return f"{fault.reason.replace('_', ' ')}{f': {text}' if text else ''}; correct it, or leave it out of the file"
