"""What rows of a batch begin with in common, so that a forward pass reads it once.

The answers to one prompt, and the two of a pair, begin alike. A token's state follows from itself and what precedes it:
of equal beginnings all is equal, and so are their gradients' sums.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Sequence
from typing import NamedTuple

WORTH = 0.1  # of the tokens of a batch; what saves less costs more, even in a model of 0.3 million parameters


class Beginning(NamedTuple):
    """A row's first `tokens` tokens are those of an earlier row, `row`."""

    row: int
    tokens: int


NONE = Beginning(0, 0)


def common_beginnings(rows: Sequence[list[int]], own: Sequence[int]) -> list[Beginning]:
    """The longest beginning that each row of token ids has in common with an earlier one; of none any where all of them
    together are not worth while.

    own: the place in each row of the first token that it shares with none.
    """
    found: list[Beginning] = []
    earlier: list[tuple[list[int], int]] = []  # sorted: what a row has most in common with lies beside it
    for index, (row, end) in enumerate(zip(rows, own, strict=True)):
        beginning = row[:end]
        place = bisect(earlier, (beginning, -1))
        beside = earlier[max(0, place - 1) : place + 1]
        found.append(max((Beginning(i, in_common(beginning, other)) for other, i in beside), key=_tokens, default=NONE))
        insort(earlier, (row, index))
    if sum(map(_tokens, found)) < WORTH * sum(map(len, rows)):
        return [NONE] * len(rows)
    return found


def _tokens(beginning: Beginning) -> int:
    return beginning.tokens


def in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two rows begin with in common."""
    together = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(together) if a != b), min(len(one), len(other)))
