"""The word that goes with a number from few prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

FEW = 30  # held-out prompts below which a standard error is itself too rough to rely on


def few(count: int) -> str:
    """` (n = 7: too few to tell)` of fewer than 30, to put behind a number; empty of more."""
    return f" (n = {count}: too few to tell)" if count < FEW else ""


def tell(stage: str, **held_out: Iterable[Mapping[str, Any]]) -> None:
    """Print a line for each of a stage's held-out files that has few prompts: `sft: validation (n = 7: too few to
    tell)`. Rows of one prompt hang together, so that they count once; a file without any has no numbers to doubt."""
    for what, rows in held_out.items():
        count = len({str(row["prompt"]) for row in rows})
        if count and (remark := few(count)):
            print(f"{stage}: {what}{remark}")
