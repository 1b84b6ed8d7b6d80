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


def as_bits(ids: Tensor, vocabulary: int) -> Tensor:
    """(B, W) uint8 that have, from the lowest bit of the first byte on, a bit for each token of a vocabulary, and one
    beyond: those of (B, K) ids, filled up with -1. Of many ids it is the smallest form whose size is known before."""
    has = torch.zeros(len(ids), vocabulary // 8 + 1, 8, dtype=torch.uint8, device=ids.device)
    has.flatten(1).scatter_(1, ids.where(ids >= 0, vocabulary), 1)
    has.flatten(1)[:, vocabulary] = 0
    return (has << torch.arange(8, dtype=torch.uint8, device=ids.device)).sum(dim=-1, dtype=torch.uint8)


def of_bits(bits: Tensor) -> Support:
    """Of (R, W) `as_bits`, rising."""
    rows, places = bits.nonzero(as_tuple=True)
    has = (bits[rows, places].unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) % 2 == 1
    ids = 8 * places.unsqueeze(1) + torch.arange(8)
    widths = torch.zeros(len(bits), dtype=torch.long).index_add_(0, rows, has.sum(dim=1))
    return Support(ids[has].int(), widths)


def joined(supports: Sequence[Support]) -> Support:
    """One text's after the other's."""
    return Support(
        torch.cat([support.ids for support in supports]), torch.cat([support.widths for support in supports])
    )
