"""What goes with a number from few prompts: a word, and an error where there is no spread."""

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


def share_se(share: float | None, se: float | None, n: int) -> float | None:
    """The standard error of a share, 0 to 1, of n independent values; None where `se` is.

    Where all are 0, or all 1, their spread is 0 and says nothing: the error is then half the distance at which all n
    would still come out alike once in 20, so that two errors reach as far as the truth may lie, about 3 / n
    [Hanley & Lippman-Hand 1983, doi:10.1001/jama.1983.03330370053031].
    """
    return (1 - 0.05 ** (1 / n)) / 2 if se is not None and share in (0, 1) else se
