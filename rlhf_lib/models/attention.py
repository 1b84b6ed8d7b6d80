"""Attention over rows laid end to end without padding, for any model that takes transformers' attention interface.

`packed` is an attention implementation as `eager` and `sdpa` are: `from_pretrained(..., attn_implementation="packed")`.
A forward pass with the keyword `packing` reads a batch of one long row as many rows; one without it is as usual. On a
GPU the products are PyTorch's fused attention, on a CPU plain batched matrix products.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from rlhf_lib.models.hardware import favours_few_calls, has_flash_attention, multiplying_slices
from rlhf_lib.models.packing import Packing, QueryBlock

IMPLEMENTATION = "packed"


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
    scaling = query.size(-1) ** -0.5 if scaling is None else scaling
    dropout = dropout if module.training else 0.0
    # on a CPU, the backward pass of PyTorch's fused attention is slow
    fuses = favours_few_calls(query.device) and softcap is None
    if packing is None:
        if fuses and attention_mask is not None:
            outputs = _fused(query, key, value, attention_mask, scaling, dropout)
        else:
            outputs = _plain(query, key, value, attention_mask, scaling, dropout, softcap)
        return outputs.transpose(1, 2), None
    query, key, value = (packing.pad(x) for x in (query, key, value))
    if sliding_window is not None and sliding_window >= packing.width:
        sliding_window = None  # all of a row is within it: a GPU has faster kernels without a mask
    if fuses:
        mask = None if sliding_window is None else packing.causal_mask(query.dtype, sliding_window)
        outputs = _fused(query, key, value, mask, scaling, dropout)
    elif favours_few_calls(query.device) or softcap is not None or torch.compiler.is_compiling():
        mask = packing.causal_mask(query.dtype, sliding_window)
        outputs = _plain(query, key, value, mask, scaling, dropout, softcap)
    else:
        query, key = (query * scaling).to(value.dtype), key.to(value.dtype)
        outputs = _BlockedAttention.apply(query, key, value, packing, sliding_window, dropout)
    return packing.unpad(outputs), None


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float, dropout: float) -> Tensor:
    """PyTorch's fused attention with a mask, or, without one, causal: for that it has its fastest kernels.

    Query heads share a key head in flash attention alone. Elsewhere each gets a copy, or all scores would be there at
    once; but of a single query the heads are as many queries of one key head.
    """
    batch, heads, length, _ = query.shape
    groups = heads // key.size(1)
    shared = groups > 1 and mask is None and _takes_flash(query, value)
    if groups > 1 and not shared:
        if length == 1 and mask is not None and mask.size(1) == 1:
            query = query.reshape(batch, key.size(1), groups, -1)
        else:
            key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
    outputs = functional.scaled_dot_product_attention(
        query, key, value, mask, dropout, mask is None, scale=scaling, enable_gqa=shared
    )
    return outputs.reshape(batch, heads, length, -1)


def _takes_flash(query: Tensor, value: Tensor) -> bool:
    """Whether PyTorch's flash attention is there for them, without a mask: for 16 bits, to which autocast may round."""
    kind = query.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else query.dtype
    fits = query.size(3) == value.size(3) <= 256
    return fits and dtype in (torch.bfloat16, torch.float16) and has_flash_attention(query.device)


@multiplying_slices()
def _plain(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float,
    dropout: float,
    softcap: float | None,
) -> Tensor:
    """softmax(query key^T scaling + mask) value; each group of query heads shares a key head [arXiv:2305.13245]."""
    batch, heads, length, size = query.shape
    groups = heads // key.size(1)
    query = (query * scaling).reshape(batch, key.size(1), groups * length, size)
    scores = query @ key.transpose(-1, -2)
    scores = scores.view(batch, heads, length, key.size(2))
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores + mask
    weights = functional.dropout(scores.softmax(-1), dropout)
    outputs = weights.view(batch, key.size(1), groups * length, -1).to(value.dtype) @ value
    return outputs.view(batch, heads, length, -1)


class _BlockedAttention(torch.autograd.Function):
    """Causal attention a block of queries at a time: softmax(query key^T + mask) value.

    A block multiplies no key that it cannot see, and no row that has ended before it. In rows of hundreds of tokens and
    of different lengths that leaves out most of the scores that a square of them would have. The backward pass is
    written out, because autograd would fill up the gradient of every slice with zeros.
    """

    @staticmethod
    @multiplying_slices()
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, packing: Packing, window: int | None, dropout: float
    ) -> Tensor:
        query, key, value = (x.contiguous() for x in (query, key, value))
        # Values may be of another size than queries and keys [arXiv:2405.04434].
        outputs, kept = value.new_zeros(*query.shape[:3], value.size(3)), []
        mask = packing.causal_mask(query.dtype, window)
        for block in packing.blocks:
            keys = _keys_seen(block, window)
            queries = _grouped(query, block, key.size(1))
            scores = queries @ key[: block.rows, :, keys].transpose(-1, -2)
            # Without a window, the keys before the block are seen by all of it.
            masked = keys if window is not None else slice(block.start, block.end)
            by_query = scores.view(block.rows, query.size(1), block.end - block.start, -1)
            by_query[..., masked.start - keys.start :] += mask[block.start : block.end, masked]
            weights = scores.softmax(-1).to(value.dtype)
            dropped, is_kept = torch.native_dropout(weights, dropout, True) if dropout > 0 else (weights, None)
            mixed = dropped @ value[: block.rows, :, keys]
            outputs[: block.rows, :, block.start : block.end] = mixed.view(*by_query.shape[:3], -1)
            if any(ctx.needs_input_grad):
                kept += [weights, is_kept]
        ctx.save_for_backward(query, key, value, *kept)
        ctx.packing, ctx.window, ctx.dropout = packing, window, dropout
        return outputs

    @staticmethod
    @once_differentiable
    @multiplying_slices()
    def backward(ctx: Any, of_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """With P the weights and D their gradient (of_outputs value^T): that of the scores is P (D - sum(P D))."""
        query, key, value, *kept = ctx.saved_tensors
        of_query, of_key, of_value = (torch.zeros_like(x) for x in (query, key, value))
        of_outputs = of_outputs.contiguous()
        for block, weights, is_kept in zip(ctx.packing.blocks, kept[::2], kept[1::2], strict=True):
            rows, keys = slice(block.rows), _keys_seen(block, ctx.window)
            queries, of_mixed = (_grouped(x, block, key.size(1)) for x in (query, of_outputs))
            of_weights = of_mixed @ value[rows, :, keys].transpose(-1, -2)
            dropped = weights
            if is_kept is not None:
                scale = 1 / (1 - ctx.dropout)
                dropped, of_weights = (x * is_kept * scale for x in (weights, of_weights))
            of_value[rows, :, keys] += dropped.transpose(-1, -2) @ of_mixed
            of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_queries = of_scores @ key[rows, :, keys]
            shape = (block.rows, query.size(1), block.end - block.start, query.size(3))
            of_query[rows, :, block.start : block.end] = of_queries.view(shape)
            of_key[rows, :, keys] += of_scores.transpose(-1, -2) @ queries
        return of_query, of_key, of_value, None, None, None


def _keys_seen(block: QueryBlock, window: int | None) -> slice:
    """The keys that a query of the block may see."""
    return slice(0 if window is None else max(0, block.start + 1 - window), block.end)


def _grouped(x: Tensor, block: QueryBlock, groups: int) -> Tensor:
    """(rows, groups, heads / groups * queries, size) of the block's queries in x, (rows, heads, width, size)."""
    return x[: block.rows, :, block.start : block.end].reshape(block.rows, groups, -1, x.size(3))


AttentionInterface.register(IMPLEMENTATION, attention)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)


def takes_packing(model: PreTrainedModel) -> bool:
    """Whether rows may lie end to end: `loading.run_fast` gave the model the attention above, for that was proven."""
    return model.config._attn_implementation == IMPLEMENTATION
