"""Rows laid end to end as one batch: where each lies, and the inputs of a forward pass that reads them so.

What rows begin with in common lies there once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlhf_lib.models.beginnings import NONE, Beginning, common_beginnings
from rlhf_lib.models.hardware import favours_few_calls

# Tokens. In shorter rows, and smaller blocks, more products cost what fewer scores save.
ONE_BLOCK = 96
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

    The padded rows are in the order of their lengths, the longest first. beginnings: what of each row lies with an
    earlier one alone; None: nothing.
    """

    def __init__(
        self, lengths: Sequence[int], device: torch.device, beginnings: Sequence[Beginning] | None = None
    ) -> None:
        beginnings = beginnings or [NONE] * len(lengths)
        sizes, common = torch.tensor(lengths), torch.tensor([tokens for _, tokens in beginnings])
        self.rows, self.width = len(lengths), int(sizes.max())
        places = torch.arange(self.width)
        # (rows, width), in the given order: where each token lies. It means nothing behind a row's end.
        self.index = ((sizes - common).cumsum(0) - sizes).unsqueeze(1) + places
        for row in common.nonzero().flatten().tolist():
            earlier, tokens = beginnings[row]
            self.index[row, :tokens] = self.index[earlier, :tokens]
        order = sizes.argsort(descending=True, stable=True)
        filled = places < sizes[order].unsqueeze(1)
        own = filled & (places >= common[order].unsqueeze(1))
        # A padding position reads its row's first token: finite, and after the causal mask of no effect.
        packed_index = torch.where(filled, self.index[order], self.index[order, :1])
        self.packed_index = packed_index.flatten().to(device)
        padded_index = torch.empty(int((sizes - common).sum()), dtype=torch.long)
        padded_index[packed_index[own]] = own.flatten().nonzero().squeeze(1)
        self.padded_index = padded_index.to(device)
        # Of the tokens that lie with an earlier row, the places among the padded ones, and where they lie.
        again = (filled & ~own).flatten().nonzero().squeeze(1)
        self.again = (again.to(device), packed_index.flatten()[again].to(device)) if len(again) else None
        self.is_dense = bool(own.all())
        self.blocks = [QueryBlock(*span, int((sizes > span[0]).sum())) for span in query_spans(self.width)]
        self._masks: dict[tuple[torch.dtype, int | None], Tensor] = {}

    def places(self, columns: Iterable[Iterable[int]]) -> Tensor:
        """(n,) where tokens lie, on the CPU: those at some columns of the first row, of the second, and so on."""
        flat = [row * self.width + column for row, of_row in enumerate(columns) for column in of_row]
        return self.index.flatten()[torch.tensor(flat, dtype=torch.long)]

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
            tokens = _Pad.apply(tokens, self)
        return tokens.reshape(self.rows, self.width, *tokens.shape[1:]).transpose(1, 2)

    def unpad(self, x: Tensor) -> Tensor:
        """(rows, heads, width, size) to (1, tokens, heads, size)."""
        tokens = x.transpose(1, 2).flatten(0, 1)
        if not self.is_dense:
            tokens = _Unpad.apply(tokens, self)
        return tokens.unsqueeze(0)


class _Pad(torch.autograd.Function):
    """Packed tokens, the first dimension, as padded rows.

    In the backward pass each token gets what its place in its own row has, by a copy, and what other rows that begin
    with it have; the padding's gradient is 0. Autograd would add up over all places.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return x.index_select(0, packing.packed_index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        packing = ctx.packing
        of_tokens = gradient.index_select(0, packing.padded_index)
        if packing.again is not None:
            again, tokens = packing.again
            of_tokens.index_add_(0, tokens, gradient.index_select(0, again))
        return of_tokens, None


class _Unpad(torch.autograd.Function):
    """Padded rows as packed tokens: of those that lie there once, what the first of their rows has."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packing: Packing) -> Tensor:
        ctx.packing = packing
        return x.index_select(0, packing.padded_index)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        packing = ctx.packing
        of_places = gradient.new_zeros(packing.packed_index.numel(), *gradient.shape[1:])
        return of_places.index_copy_(0, packing.padded_index, gradient), None


def packed_inputs(rows: Sequence[list[int]], own: Sequence[int], device: torch.device) -> dict[str, Any]:
    """Keyword arguments of a forward pass of rows of token ids laid end to end.

    own: the place in each row of the first token that must be its own (its length: none must), because something is
    asked of it that is not asked of an equal beginning. On a CPU, rows of no meaning may follow.
    """
    beginnings, lengths = common_beginnings(rows, own), [len(row) for row in rows]
    tokens = [token for row, (_, common) in zip(rows, beginnings, strict=True) for token in row[common:]]
    positions = [place for n, (_, common) in zip(lengths, beginnings, strict=True) for place in range(common, n)]
    filler = [] if favours_few_calls(device) else _filler(len(tokens), max(lengths))
    tokens += tokens[:1] * sum(filler)  # no pad token: some embeddings of it are 0, and a norm has no slope there
    positions += [place for length in filler for place in range(length)]
    return {
        "input_ids": torch.tensor([tokens], device=device),
        "position_ids": torch.tensor([positions], device=device),
        # The packing says who attends to whom; a mask of four dimensions keeps transformers from making one. Where the
        # packing does not arrive, all attention is NaN.
        "attention_mask": torch.full((1, 1, 1, 1), torch.nan, device=device),
        "packing": Packing([*lengths, *filler], device, [*beginnings, *(NONE for _ in filler)]),
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


def marked(places: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    """Bool, like the (B, T) `input_ids` of a forward pass: True at (n,) places among the flattened ones, and on their
    device."""
    marks = torch.zeros(inputs["input_ids"].shape, dtype=torch.bool, device=places.device)
    marks.view(-1)[places] = True
    return marks
