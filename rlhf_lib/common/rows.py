"""The one row type that every source becomes, and JSON Lines files."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NotRequired, TypedDict, TypeGuard

from rlhf_lib.common.files import replacing

ROLES = ("system", "user", "assistant")
EXCERPT = 300  # characters that are shown of a text that was left out

JsonObject = dict[str, Any]  # of a line of a JSON Lines file; what it holds, the stage that writes it says


class Message(TypedDict):
    """One turn of a dialogue; `role` is one of `ROLES`."""

    role: str
    content: str


class ScoredResponse(TypedDict):
    """An answer and its score, in the units of its source: a higher score is better; None where the source has none."""

    content: str
    score: float | None


class Row(TypedDict):
    """A prompt (one or more messages, the last of them the user's) with its responses (none: a prompt alone)."""

    id: str
    source: str  # the name of the source; with a part of it, such as demo/facts
    split: str  # "test" where the source has it in a test split of its own, else "train"
    prompt: list[Message]
    responses: list[ScoredResponse]
    # what reward functions get beside it, as JSON has it; None where it is not there
    columns: NotRequired[dict[str, Any]]


def make_row(source: str, prompt: list[Message], responses: list[ScoredResponse]) -> Row:
    """A row with its id."""
    return {
        "id": row_id(source, prompt),
        "source": source,
        "split": "train",
        "prompt": prompt,
        "responses": responses,
    }


def row_id(source: str, prompt: Sequence[Message]) -> str:
    """16 hex digits that depend on the source and the prompt alone."""
    text = json.dumps([source, [[message["role"], message["content"]] for message in prompt]], ensure_ascii=False)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def clean_text(text: str) -> str:
    r"""`text` with lines ended by \n and no blank space around it."""
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def normalise(prompt: Sequence[Message]) -> str:
    """The prompt with case, punctuation and spacing taken out: equal for prompts that count as the same."""
    return "\n".join(f"{message['role']} {_normalised(message['content'])}" for message in prompt)


def _normalised(text: str) -> str:
    # casefold can undo NFKC, so once more: the Unicode standard's compatibility caseless match
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = "".join(" " if unicodedata.category(char).startswith("P") else char for char in text)
    return " ".join(text.split())


def write_jsonl(path: Path | str, records: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line, keys in the order they have; returns how many. Never leaves half a file.

    Without records the file is a blank line: of an empty one, DVC warns at every run.
    """
    count = 0
    with replacing(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
        if count == 0:
            file.write("\n")
    return count


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")


_parse = json.JSONDecoder(parse_constant=_refuse).decode  # Python's would read NaN, which no stage can write again


def read_values(path: Path | str) -> Iterator[Any]:
    """The JSON value of each line that is not blank; a `SystemExit` of one line for a missing or broken file."""
    try:
        file = open(path, "rb")  # noqa: SIM115 -- closed below; only opening it is guarded here
    except OSError as error:
        raise SystemExit(f"{path}: {error.strerror}; the stage before this one writes it (dvc repro)") from None
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield _parse(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise SystemExit(f"{path}: line {number}: not a line of JSON in UTF-8: {error}") from None


def read_jsonl(path: Path | str) -> list[dict[str, Any]]:
    """The JSON object of each line; a `SystemExit` of one line for anything else."""
    return list(stream_jsonl(path))


def some(rows: Sequence[JsonObject], most: int | None) -> list[JsonObject]:
    """The rows or, of more than `most`, those with the lowest ids, in their order.

    Ids are hashes, so these are a fair draw, as the first are not: a file holds one source after the other.
    """
    if most is None or len(rows) <= most:
        return list(rows)
    places = sorted(range(len(rows)), key=lambda place: rows[place]["id"])[:most]
    return [rows[place] for place in sorted(places)]


def parse_row(line: bytes | str, place: str) -> Row:
    """The row in a line of JSON; a `SystemExit` of one line, which names the `place`, where there is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SystemExit(f"{place}: not a line of JSON: {error}") from None
    if not isinstance(value, dict) or not _is_row(value):
        raise SystemExit(f"{place}: not a row of id, source, split, prompt and responses; run dvc repro load")
    row = Row(
        id=value["id"],
        source=value["source"],
        split=value["split"],
        prompt=value["prompt"],
        responses=value["responses"],
    )
    if "columns" in value:
        row["columns"] = value["columns"]
    return row


def stream_jsonl(path: Path | str) -> Iterator[dict[str, Any]]:
    """The JSON object of each line, one after the other; a `SystemExit` of one line for anything else."""
    for number, value in enumerate(read_values(path), start=1):
        if not isinstance(value, dict):
            raise SystemExit(f"{path}: record {number}: must be a JSON object")
        yield value


def is_text(value: Any) -> TypeGuard[str]:
    """Whether `value` is a string that UTF-8 can hold: JSON can also spell half a surrogate pair."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_blank(text: str) -> bool:
    """Whether nothing of `text` would show: spaces, and marks such as U+200B that `str.strip` leaves."""
    return all(char.isspace() or unicodedata.category(char) in ("Cc", "Cf") for char in text)


def is_messages(value: Any) -> bool:
    """Whether `value` is a list of messages with known roles; an empty list is not."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(m, dict) and m.get("role") in ROLES and is_text(m.get("content")) for m in value)
    )


def as_score(value: Any) -> float | None:
    """`value` as a finite float, or None where it is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        score = float(value)
    except OverflowError:
        return None
    return score if math.isfinite(score) else None


def _is_row(value: dict[str, Any]) -> bool:
    responses = value.get("responses")
    return (
        is_text(value.get("id"))
        and is_text(value.get("source"))
        and value.get("split") in ("train", "test")
        and is_messages(value.get("prompt"))
        and isinstance(value.get("columns", {}), dict)
        and isinstance(responses, list)
        and all(
            isinstance(r, dict)
            and is_text(r.get("content"))
            and (r.get("score", "") is None or as_score(r.get("score")) is not None)
            for r in responses
        )
    )
