"""The parts of the vocabulary that a response's tokens were drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Support(NamedTuple):
    """The token ids that each of R tokens was drawn from, one token's after the other's: where most are drawn from a
    few, and one of a text from thousands, a table of them would be mostly empty."""

    ids: Tensor  # (sum of widths,) int32
    widths: Tensor  # (R,) how many ids are of each token

    def first(self, count: int) -> Support:
        """What the first tokens were drawn from."""
        widths = self.widths[:count]
        return Support(self.ids[: int(widths.sum())], widths)

    def padded(self) -> Tensor:
        """(R, K) int64, filled up with -1."""
        is_there = torch.arange(int(self.widths.max())) < self.widths.unsqueeze(1)
        return torch.full(is_there.shape, -1).masked_scatter_(is_there, self.ids.long())


def of_padded(ids: Tensor) -> Support:
    """Of (R, K) ids, filled up with -1 at their ends."""
    is_there = ids >= 0
    return Support(ids[is_there].int(), is_there.sum(dim=1))


def joined(supports: Sequence[Support]) -> Support:
    """One text's after the other's."""
    return Support(
        torch.cat([support.ids for support in supports]), torch.cat([support.widths for support in supports])
    )
