"""The file of answers: JSON Lines, or CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_lib.common.files import replacing
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.inputs.owned import owner

# A cell that begins so is a formula to a spreadsheet [OWASP, CSV injection]; the wide forms of the signs too.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

ALWAYS = ("row", "prompt", "reference", "answer", "finished", "tokens")  # columns of every file

Rows = Sequence[Mapping[str, Any]]


def write_csv(path: str | Path, rows: Rows) -> None:
    """RFC 4180, in UTF-8: a header, lines that end in CR LF, quotes doubled. Texts that a spreadsheet would take for
    formulas begin with an apostrophe, and U+FFFD stands for NUL; numbers are as they are, None is nothing."""
    with replacing(path) as file:
        writer = csv.writer(file)  # whose dialect is that of RFC 4180
        writer.writerow([_cell(name) for name in rows[0]])
        writer.writerows([_cell(value) for value in row.values()] for row in rows)


def unguarded(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record of a CSV that was written here, without the apostrophes that were put before its texts; any other as it
    is. It is known by its columns, and by `finished`, which is a text only in CSV."""
    if not {*ALWAYS} <= record.keys() or record["finished"] not in ("true", "false"):
        return record
    return {name: value[1:] if _is_guarded(value) else value for name, value in record.items()}


def _is_guarded(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("'") and _needs_guard(value)


def _needs_guard(text: str) -> bool:
    """Whether a text would be a formula; or is one behind apostrophes, which must not be taken for ours when read."""
    return text.lstrip("'").startswith(FORMULA)


def _cell(value: Any) -> Any:
    if isinstance(value, list):  # a prompt of several turns
        value = "\n".join(f"{message['role']}: {message['content']}" for message in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return value
    text = value.replace("\0", "\ufffd")  # of a file with a NUL, readers of CSV make nothing, ours among them
    return f"'{text}" if _needs_guard(text) else text


def _write_jsonl(path: str | Path, rows: Rows) -> None:
    write_jsonl(path, rows)


WRITERS: dict[str, Callable[[str | Path, Rows], None]] = {
    ".jsonl": _write_jsonl,
    ".ndjson": _write_jsonl,
    ".csv": write_csv,
}


def writer(out: str, prompts: Sequence[str]) -> Callable[[str | Path, Rows], None]:
    """What writes the file `out`, by the end of its name; a `ParamsError` where nothing can, or must not: it is one of
    the files of `prompts`, a stage's, or git's."""
    suffix = Path(out).suffix.lower()
    if suffix not in WRITERS:
        raise ParamsError(f"{out}: the name must end in one of {', '.join(WRITERS)}")
    whose = "is a folder" if os.path.isdir(out) else owner(out)
    if any(os.path.exists(file) and os.path.exists(out) and os.path.samefile(file, out) for file in prompts):
        whose = "is the file of the prompts"
    if whose:
        raise ParamsError(f"{out}: {whose}; give another OUT")
    return WRITERS[suffix]
