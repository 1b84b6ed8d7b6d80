"""How many of a file's lengths a limit holds, and what limit would hold most of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

MOST = 0.95  # the share that a limit should hold
MANY = 0.2  # the share of longer ones from which a line says so where something is about to run
STEP = 16  # tokens, to a multiple of which a limit that would do is rounded up

Item = TypeVar("Item")


@dataclass(frozen=True)
class Fit:
    """Of `rows` lengths `longer` are above `limit`; `enough` would hold 95 % of them. All lengths are in tokens."""

    limit: int
    rows: int
    longer: int
    enough: int

    @classmethod
    def of(cls, lengths: Iterable[int], limit: int) -> Fit:
        """What a limit does to these lengths."""
        ordered = sorted(lengths)
        place = math.ceil(MOST * len(ordered)) - 1
        enough = math.ceil(ordered[place] / STEP) * STEP if ordered else 0
        return cls(limit, len(ordered), sum(length > limit for length in ordered), enough)

    @property
    def share(self) -> float:
        """The share that is longer, 0 to 1; 0 of no rows."""
        return self.longer / self.rows if self.rows else 0.0

    @property
    def holds_most(self) -> bool:
        """Whether at least 95 % are within the limit."""
        return self.longer <= (1 - MOST) * self.rows


def spread_sample(items: Sequence[Item], most: int) -> Sequence[Item]:
    """At most `most` of the items, at even distances."""
    return items[:: math.ceil(len(items) / most)] if len(items) > most else items
