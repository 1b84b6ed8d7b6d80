"""Rows laid end to end as one batch: where each lies, and the inputs of a forward pass that reads them so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rlhf_lib.models.hardware import favours_few_calls

# Tokens. In shorter rows, and smaller blocks, more products cost what fewer scores save.
ONE_BLOCK = 128
BLOCK = 64
FILL = 32  # tokens; see `_filler`


class QueryBlock(NamedTuple):
    """Queries that are worked on together: tokens `start` to `end` of the first `rows` rows, which are that long."""

    start: int
    end: int
    rows: int


def query_spans(width: int) -> list[tuple[int, int]]:
    """Starts and ends of the blocks of queries in rows of `width` tokens: one, or several where that is faster."""
    size = width if width <= ONE_BLOCK else BLOCK
    return [(start, min(start + size, width)) for start in range(0, width, size)]


class Packing:
    """Where each row of a packed batch lies, and where its tokens would be if the rows were padded on the right.

    The padded rows are in the order of their lengths, the longest first.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        sizes = torch.tensor(lengths)
        first = sizes.cumsum(0) - sizes
        order = sizes.argsort(descending=True, stable=True)
        self.rows, self.width = len(lengths), int(sizes.max())
        places = torch.arange(self.width)
        filled = places < sizes[order].unsqueeze(1)
        # A padding position reads its row's first token: finite, and after the causal mask of no effect.
        packed_index = first[order].unsqueeze(1) + places * filled
        self.packed_index = packed_index.flatten().to(device)
        padded_index = torch.empty(int(sizes.sum()), dtype=torch.long)
        padded_index[packed_index[filled]] = filled.flatten().nonzero().squeeze(1)
        self.padded_index = padded_index.to(device)
        self.is_dense = bool(filled.all())
        self.blocks = [QueryBlock(*span, int((sizes > span[0]).sum())) for span in query_spans(self.width)]
        self._masks: dict[tuple[torch.dtype, int | None], Tensor] = {}

    def causal_mask(self, dtype: torch.dtype, window: int | None) -> Tensor:
        """(width, width): 0 where the column is at most the row, and within the sliding window; elsewhere -inf."""
        if (dtype, window) not in self._masks:
            device = self.packed_index.device
            seen = torch.ones(self.width, self.width, dtype=torch.bool, device=device).tril()
            if window is not None:
                seen &= ~seen.tril(-window)
            mask = torch.zeros(self.width, self.width, dtype=dtype, device=device)
            self._masks[dtype, window] = mask.masked_fill_(~seen, torch.finfo(dtype).min)
        return self._masks[dtype, window]

    def pad(self, x: Tensor) -> Tensor:
        """(1, heads, tokens, size) to (rows, heads, width, size)."""
        tokens = x[0].transpose(0, 1)
        if not self.is_dense:
            tokens = _Gather.apply(tokens, self.packed_index, self.padded_index)
        return tokens.reshape(self.rows, self.width, *tokens.shape[1:]).transpose(1, 2)

    def unpad(self, x: Tensor) -> Tensor:
        """(rows, heads, width, size) to (1, tokens, heads, size)."""
        tokens = x.transpose(1, 2).flatten(0, 1)
        if not self.is_dense:
            tokens = _Gather.apply(tokens, self.padded_index, self.packed_index)
        return tokens.unsqueeze(0)


class _Gather(torch.autograd.Function):
    """x[index] along the first dimension. `inverse` says where each real token of x (or of the result) comes to lie.

    Between packed and padded tokens every real one has exactly one place, and the padding's gradient is 0: the
    backward pass is a copy, where autograd would add up over the index.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(index, inverse)
        ctx.size = x.size(0)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        index, inverse = ctx.saved_tensors
        to_padded = index.numel() > ctx.size
        if to_padded:
            return gradient.index_select(0, inverse), None, None
        return gradient.new_zeros(ctx.size, *gradient.shape[1:]).index_copy_(0, index, gradient), None, None


def packed_inputs(tokens: Tensor, positions: Tensor, lengths: Sequence[int]) -> dict[str, Any]:
    """Keyword arguments of a forward pass of rows laid end to end: (n,) tokens, and their places in their rows.

    On a CPU, rows of no meaning may follow (`filled`).
    """
    filler = [] if favours_few_calls(tokens.device) else _filler(len(tokens), max(lengths))
    if filler:
        tokens = torch.cat([tokens, tokens.new_zeros(sum(filler))])
        positions = torch.cat([positions, *(torch.arange(length, device=positions.device) for length in filler)])
        lengths = [*lengths, *filler]
    return {
        "input_ids": tokens.unsqueeze(0),
        "position_ids": positions.unsqueeze(0),
        # The packing says who attends to whom; a mask of four dimensions keeps transformers from making one. Where the
        # packing does not arrive, all attention is NaN.
        "attention_mask": torch.full((1, 1, 1, 1), torch.nan, device=tokens.device),
        "packing": Packing(lengths, tokens.device),
        "use_cache": False,
    }


def _filler(n: int, longest: int) -> list[int]:
    """Lengths of rows that bring `n` tokens up to one of 16 numbers between a power of two and the next.

    oneDNN compiles each matrix product anew for a number of rows that it has not seen, which in a small model takes
    longer than the product.
    """
    step = max(FILL, (1 << (n.bit_length() - 1)) // 16)
    missing = -n % step
    return [min(longest, missing - start) for start in range(0, missing, longest)]


def filled(marks: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    """(1, N) marks of the N tokens of a packed forward pass from (n,) those of its rows: False where it was filled."""
    return functional.pad(marks, (0, inputs["input_ids"].size(1) - len(marks))).unsqueeze(0)
