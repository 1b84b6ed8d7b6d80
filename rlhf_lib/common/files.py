"""Writing the files that DVC tracks: metrics, curves, and any text that must never be half there."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def replacing(path: Path | str) -> Iterator[TextIO]:
    """A text file to write that takes the place of `path` only once it is whole; makes the parent folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with open(unfinished, "w", encoding="utf-8", newline="\n") as file:
            yield file
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as JSON: sorted keys, floats to 6 significant digits, NaN and infinities as null."""
    text = json.dumps(rounded(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    with replacing(path) as file:
        file.write(text + "\n")


def write_curve(path: Path | str, rows: Iterable[Mapping[str, Any]], columns: Iterable[str] = ()) -> None:
    """Write rows as TSV: `columns`, which are there even without rows, then others in the order first seen; an empty
    cell where a row lacks the key, or holds None, NaN or an infinity."""
    rows = list(rows)
    header = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    with replacing(path) as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_cell(row.get(column)) for column in header] for row in rows)


def rounded(value: Any) -> Any:
    """`value` with every float in it rounded; JSON has no NaN, so one becomes null."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else ""
    return "" if value is None else str(value)
