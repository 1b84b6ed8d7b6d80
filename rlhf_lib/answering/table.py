"""The file of answers: JSON Lines, or CSV that is safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_lib.common.files import replacing
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import ParamsError

# A cell that begins so is a formula to a spreadsheet [OWASP, CSV injection]; the wide forms of the signs too.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

Rows = Sequence[Mapping[str, Any]]


def write_csv(path: str | Path, rows: Rows) -> None:
    """RFC 4180, in UTF-8: a header, lines that end in CR LF, quotes doubled. Texts that a spreadsheet would take for
    formulas begin with an apostrophe; numbers are written as they are, nothing for None."""
    with replacing(path) as file:
        writer = csv.writer(file)  # whose dialect is that of RFC 4180
        writer.writerow([_cell(name) for name in rows[0]])
        writer.writerows([_cell(value) for value in row.values()] for row in rows)


def _cell(value: Any) -> Any:
    if isinstance(value, list):  # a prompt of several turns
        value = "\n".join(f"{message['role']}: {message['content']}" for message in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _write_jsonl(path: str | Path, rows: Rows) -> None:
    write_jsonl(path, rows)


WRITERS: dict[str, Callable[[str | Path, Rows], None]] = {
    ".jsonl": _write_jsonl,
    ".ndjson": _write_jsonl,
    ".csv": write_csv,
}


def writer(out: str, prompts: str) -> Callable[[str | Path, Rows], None]:
    """What writes the file `out`, by the end of its name; a `ParamsError` where nothing can."""
    path = Path(out)
    if path.suffix.lower() not in WRITERS:
        raise ParamsError(f"{out}: the name must end in one of {', '.join(WRITERS)}")
    if path.is_dir() or (path.exists() and Path(prompts).exists() and path.samefile(prompts)):
        raise ParamsError(f"{out}: {'a folder' if path.is_dir() else 'the file of the prompts'}; give another OUT")
    return WRITERS[path.suffix.lower()]
