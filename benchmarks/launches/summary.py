"""From counts to a task's numbers, and these as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.launches.cases import LONG

if TYPE_CHECKING:
    from benchmarks.launches.counter import Counts

MB = 1e6
FEW = 12  # operators that are named in the results


def line(low: float, high: float, tokens: int, wanted: int) -> float:
    """The value at `wanted` tokens of the straight line through that at `tokens` and that at twice as many."""
    return low + (high - low) / tokens * (wanted - tokens)


def summary(
    one: Counts, deeper: Counts, longer: Counts, tokens: int, at_once: int | None, layers: int
) -> dict[str, Any]:
    """A task's numbers: those of one layer, what another layer adds, and what each token adds.

    one: of a layer and of `tokens` tokens, `at_once` of them in a forward pass, or None where they are one of each row;
    deeper: of two layers; longer: of a layer and twice as many tokens. layers: of the published model, whose calls
    follow.
    """
    calls, waits = sum(one.calls.values()), sum(one.waits.values())
    per_layer = sum(deeper.calls.values()) - calls
    low, high = (counts.largest_of_head.bytes / MB for counts in (one, longer))
    return {
        "tokens": tokens,
        "tokens_at_once": at_once,
        "calls": calls,
        "calls_per_layer": per_layer,
        "calls_of_model": calls + (layers - 1) * per_layer,
        "calls_per_token": (sum(longer.calls.values()) - calls) / tokens,
        "waits": waits,
        "waits_per_layer": sum(deeper.waits.values()) - waits,
        "waits_per_token": (sum(longer.waits.values()) - waits) / tokens,
        "uploads": sum(one.uploads.values()),
        "peak_mb": one.peak_bytes / MB,
        "largest_mb": one.largest.bytes / MB,
        "largest": f"{one.largest.operator} {list(one.largest.shape)}",
        "head_mb": low,
        "head_mb_at_16000": None if at_once is None else line(low, high, at_once, LONG),
        "head_mb_at_16000_measured": False,
        "calls_by_operator": dict(sorted(one.calls.items(), key=lambda item: -item[1])[:FEW]),
        "waits_at": dict(sorted(one.waits.items())),
        "uploads_at": dict(sorted(one.uploads.items())),
    }


def table(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """The cases as a Markdown table: of each number ours and, after a comma, TRL's."""
    columns = ("calls", "calls_per_layer", "calls_per_token", "waits", "uploads", "largest_mb")
    header = (
        "| model, paths | task | calls | a layer | a token | waits | uploads | largest MB | head MB at 16,000 tokens |"
    )
    lines = [header, "|" + "---|" * (header.count("|") - 1)]
    for name, case in cases.items():
        for task, sides in case["tasks"].items():
            cells = [", ".join(_shown(sides[side][column]) for side in sides) for column in columns]
            cells.append(", ".join(_of_head(sides[side]) for side in sides))
            lines.append(f"| {name} | {task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _of_head(numbers: Mapping[str, Any]) -> str:
    """What the output layer's largest tensor takes, or would take at most."""
    if not (size := numbers["head_mb_at_16000"]):
        return "–"
    return _shown(size) if numbers["head_mb_at_16000_measured"] else f"≤ {_shown(size)}"


def _shown(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.2g}"
