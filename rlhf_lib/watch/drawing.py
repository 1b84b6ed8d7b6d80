"""Numbers as text: curves in block characters, bars, times."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-~=+*#"


def spark(values: Sequence[float], width: int, signs: str = BLOCKS) -> str:
    """A curve of one line: the lowest value as the first of the signs, the highest as the last.

    values: by step; those that are not finite are left out. More of them than `width` are averaged.
    """
    shown = condensed(values, width)
    return "".join(signs[min(int(share * len(signs)), len(signs) - 1)] for share in _shares(shown))


def chart(values: Sequence[float], width: int, height: int, signs: str = BLOCKS) -> list[str]:
    """`height` lines of `width` columns, filled up to a line through the values, which are spread over the columns."""
    shares = _shares(_stretched(condensed(values, width), width))
    levels = [1 + round(share * (height * len(signs) - 1)) for share in shares]
    lines = []
    for row in reversed(range(height)):
        filled = (min(max(level - row * len(signs), 0), len(signs)) for level in levels)
        lines.append("".join(signs[count - 1] if count else " " for count in filled).rstrip())
    return lines


def condensed(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: the finite ones, or the means of as many runs of them of about one length."""
    finite = [value for value in values if math.isfinite(value)]
    count = min(width, len(finite))
    edges = [round(i * len(finite) / count) for i in range(count + 1)] if count else []
    runs = [finite[start:end] for start, end in itertools.pairwise(edges)]
    return [sum(run) / len(run) for run in runs]


def _stretched(values: Sequence[float], width: int) -> list[float]:
    """`width` points of the line through the values."""
    if not values:
        return []
    points = []
    for column in range(width):
        place = column * (len(values) - 1) / max(width - 1, 1)
        left = min(int(place), len(values) - 1)
        right = min(left + 1, len(values) - 1)
        points.append(values[left] + (place - left) * (values[right] - values[left]))
    return points


def _shares(values: Sequence[float]) -> list[float]:
    """Where each value lies between the lowest (0) and the highest (1); the middle where all are one."""
    if not values:
        return []
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


def bar(share: float, width: int, signs: str = BLOCKS) -> str:
    """A bar of which a share, from 0 to 1, is filled."""
    filled = round(min(max(share, 0.0), 1.0) * width)
    full, empty = ("█", "░") if signs == BLOCKS else ("#", ".")
    return full * filled + empty * (width - filled)


def number(value: float) -> str:
    """To four digits."""
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """In the two units that tell most, such as 41 s, 3 min 20 s or 2 h 5 min."""
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """Bytes in MiB, or in GiB from one on."""
    return f"{count / 2**20:.0f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"
