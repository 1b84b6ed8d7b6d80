"""Attention over rows laid end to end without padding, for any model that takes transformers' attention interface.

`packed` is an attention implementation as `eager` and `sdpa` are: `from_pretrained(..., attn_implementation="packed")`.
A forward pass with the keyword `packing` reads a batch of one long row as many rows; one without it is as usual. On a
CPU the products are plain batched matrix products: the backward pass of PyTorch's fused attention is slower there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

IMPLEMENTATION = "packed"


class Packing:
    """Where each row of a packed batch lies, and where its tokens would be if the rows were padded on the right."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        sizes = torch.tensor(lengths)
        self.rows, self.width = len(lengths), int(sizes.max())
        filled = torch.arange(self.width) < sizes.unsqueeze(1)
        self.padded_index = filled.flatten().nonzero().squeeze(1).to(device)
        first = sizes.cumsum(0) - sizes
        # A padding position reads its row's first token: finite, and after the causal mask of no effect.
        self.packed_index = (first.unsqueeze(1) + torch.arange(self.width) * filled).flatten().to(device)
        self.is_dense = bool(filled.all())
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
    """Keyword arguments of a forward pass of rows laid end to end: (n,) tokens, and their places in their rows."""
    return {
        "input_ids": tokens.unsqueeze(0),
        "position_ids": positions.unsqueeze(0),
        # The packing says who attends to whom; a mask of four dimensions keeps transformers from making one.
        "attention_mask": torch.zeros(1, 1, 1, 1, device=tokens.device),
        "packing": Packing(lengths, tokens.device),
        "use_cache": False,
    }


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packing: Packing | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: (B, heads, T, size) queries to (B, T, heads, size) outputs.

    A `NotImplementedError` for attention sinks and position biases, which no model of the kinds tested has.
    """
    if s_aux is not None or position_bias is not None:
        raise NotImplementedError(f"{type(module).__name__}: attention with sinks or position biases")
    if packing is None:
        return _attend(module, query, key, value, attention_mask, scaling, dropout, softcap).transpose(1, 2), None
    query, key, value = (packing.pad(x) for x in (query, key, value))
    mask = packing.causal_mask(query.dtype, sliding_window)
    return packing.unpad(_attend(module, query, key, value, mask, scaling, dropout, softcap)), None


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    dropout: float,
    softcap: float | None,
) -> Tensor:
    """softmax(query key^T scaling + mask) value; each group of query heads shares a key head [arXiv:2305.13245]."""
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    if query.device.type != "cpu" and softcap is None:
        return functional.scaled_dot_product_attention(
            query, key, value, mask, dropout, scale=scaling, enable_gqa=query.size(1) != key.size(1)
        )
    batch, heads, length, size = query.shape
    groups = heads // key.size(1)
    query = (query * scaling).reshape(batch, key.size(1), groups * length, size)
    scores = query @ key.transpose(-1, -2)
    scores = scores.view(batch, heads, length, key.size(2))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores + mask
    weights = functional.dropout(scores.softmax(-1), dropout, module.training)
    outputs = weights.view(batch, key.size(1), groups * length, -1).to(value.dtype) @ value
    return outputs.view(batch, heads, length, -1)


AttentionInterface.register(IMPLEMENTATION, attention)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


def takes_packing(model: PreTrainedModel) -> bool:
    """Whether rows that lie end to end stay apart: all the model's layers are attention that goes to `attention` above.

    A convolution or a recurrence would run on from one row into the next.
    """
    layers = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    return (
        model.config._attn_implementation == IMPLEMENTATION
        and layers <= {"full_attention", "sliding_attention"}
        and not model._is_stateful
    )
