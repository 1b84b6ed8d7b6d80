"""The prompts of a file, each with its reference answer where the file has one."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any, NamedTuple

from rlhf_lib.answering.table import unguarded
from rlhf_lib.common.rows import Message, Row, is_blank
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.data.load import compression, files
from rlhf_lib.data.load.columns import ALWAYS, parse, used
from rlhf_lib.data.load.fields import values
from rlhf_lib.data.load.messages import as_messages, last_answer, user_prompt
from rlhf_lib.data.load.params import COLUMNS, SourceParams
from rlhf_lib.data.load.reader import Record, Rejected

REFERENCES = ("reference", "answer")  # names that a column of references may have, beside those of answers in data
TEXT = ".txt"
DIALOGUES = ("chosen", "response", "completion", "messages")  # columns of answers that may have the prompt in them


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
    """The prompts of a file, or of those that a glob matches, at most `most`; a `SystemExit` of one line for a file or
    a record that has none.

    Columns are known by the names of docs/data.md, and by `reference` and `answer`, unless they are given. A text file
    has a prompt on each line that is not blank.
    """
    _check_no_folder(path)
    is_text = path.lower().endswith(TEXT)
    records = chain.from_iterable(map(_lines, named(path) or [path])) if is_text else _records(path)
    columns = {"prompt": prompt_column, "reference": reference_column}
    asked = [_asked(record, number, columns) for number, record in enumerate(islice(records, most), start=1)]
    if not asked:
        raise ParamsError(f"{path}: holds no prompts; write one on each line")
    return asked


def named(pattern: str) -> list[str]:
    """The files that a path or glob stands for, as far as there are any, by name."""
    path = os.path.expanduser(pattern)
    found = [path] if os.path.lexists(path) else glob.glob(path, recursive=True)
    return sorted(file for file in found if not os.path.isdir(file))


def _check_no_folder(path: str) -> None:
    """A `ParamsError` for a folder, with the glob of the kind of file that it holds most of."""
    folder = os.path.expanduser(path)
    if not os.path.isdir(folder):
        return
    try:
        ends = Counter(end for name in sorted(os.listdir(folder)) if (end := _end(name)))
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read: {error.strerror}; check its permissions") from None
    if not ends:
        raise ParamsError(f"{path}: a folder without files of prompts ({', '.join([*files.PARSERS, TEXT])}); name one")
    ((end, _),) = ends.most_common(1)
    raise ParamsError(f"{path}: a folder; name its files, such as '{os.path.join(path, f'*{end}')}'")


def _end(name: str) -> str | None:
    """The end of a file's name, where files of that kind can be read, such as .csv or .jsonl.gz."""
    packed = compression.suffix(name)
    kind = os.path.splitext(name.removesuffix(packed))[1]
    can_be_packed = kind.lower() in files.PARSERS and kind.lower() != ".parquet"
    return kind + packed if can_be_packed or (not packed and kind.lower() in (TEXT, ".parquet")) else None


def _records(path: str) -> Iterator[Record]:
    try:
        for record in files.read(path):
            value = files.parse_line(record.place, record.value) if isinstance(record.value, bytes) else record.value
            if isinstance(value, str):  # a text on a line of JSON
                value = {"prompt": value}
            yield record._replace(value=unguarded(value) if isinstance(value, dict) else value)
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
    """The record as a row; without its answers where these are the fault, for then there is no reference.

    A dialogue whose last turn is no answer is a prompt as a whole: only training cuts it at its last answer.
    """
    columns: dict[str, str | list[str] | None] = {"split": None}
    if given["prompt"]:
        columns["prompt"] = given["prompt"]
    source = SourceParams(reader="file", path="prompts", columns=columns)
    if open_end := _without_last_answer(raw, source):
        raw = {name: raw[name] for name in ("system",) if name in raw} | {"prompt": open_end}
        source = SourceParams(reader="file", path="prompts", columns={"split": None})
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


def _without_last_answer(raw: dict[str, Any], source: SourceParams) -> list[Message] | None:
    """The dialogue of which a record's answer would be taken, where turns follow on that answer; else None."""
    if not (read := used(raw, source)) & {*DIALOGUES}:
        return None
    fields = values(raw, source.columns)
    for name in DIALOGUES:
        turns = as_messages(fields.get(name)) if name in read else None
        cut = last_answer(turns)
        if turns and cut and turns[-1]["role"] != "assistant":
            return turns if cut[0] else [*(user_prompt(fields.get("prompt")) or []), *turns]
    return None


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
