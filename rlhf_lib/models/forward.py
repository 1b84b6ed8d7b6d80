"""Forward passes of any architecture: what they take, where hidden states are, and steps that go on from a cache."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

from rlhf_lib.models.layers import base_model

# State-space models name it otherwise; they read the mask of the padding with the prompt alone.
_CACHE, _STATES = "past_key_values", "cache_params"
_LOGITS = "logits_to_keep"


class _BufferLayer(DynamicLayer):
    """A layer's keys and values in room for all tokens to come: a plain dynamic layer copies them at every step.

    Both are kept in the values' type: in autocast, rotary embeddings make fp32 of keys, which every product with them
    would round to the values' type again.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.length = room, 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [
                value_states.new_empty(*x.shape[:2], self.room, x.size(3)) for x in (key_states, value_states)
            ]
        first, self.length = self.length, self.length + key_states.size(2)
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, first : self.length] = new
        return self._show()

    def batch_select_indices(self, indices: Tensor) -> None:
        if not self.is_initialized:
            return  # of a layer that keeps nothing
        self.buffers = [buffer[indices] for buffer in self.buffers]
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (buffer[:, :, : self.length] for buffer in self.buffers)
        return self.keys, self.values


def forward_takes(model: PreTrainedModel, name: str) -> bool:
    """Whether the forward of a model, PEFT's included, has a parameter of this name: others it would swallow unread."""
    return name in inspect.signature(type(base_model(model)).forward).parameters


def logits_where(model: PreTrainedModel, wanted: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    """(n, V) logits of a forward pass where (B, T) `wanted` is True; the rest are not computed, where the model can."""
    if forward_takes(model, _LOGITS):
        return model(**inputs, logits_to_keep=wanted).logits
    return model(**inputs).logits[wanted]


def trunk(model: PreTrainedModel) -> nn.Module:
    """The module of a causal language model whose output begins with the last hidden state; `proof.unfit` holds it to
    that.

    An OPT has its decoder inside its base model, and goes past that; a Llama 4 names as its base model what it has not,
    and a ModernBERT calls its output layer its decoder.
    """
    decoder = model.get_decoder()
    if decoder is not model and decoder is not model.get_output_embeddings():
        return decoder
    embeddings = model.get_input_embeddings()
    return next(child for child in model.children() if any(module is embeddings for module in child.modules()))


class Steps:
    """Forward passes of a causal language model that go on, each from where the last one ended.

    Of rows that begin alike, the beginning is read once.
    """

    def __init__(self, model: PreTrainedModel, room: int, caches: bool = True) -> None:
        """room: the most tokens of a row, its padding included. caches: else each step reads the whole rows again."""
        self.model = model
        self.cache: DynamicCache | None = None
        self._read: Tensor | None = None  # (B, T) all tokens so far, where there is no cache
        self._masks_steps = forward_takes(model, _CACHE)
        self._inputs: dict[str, Any] = {"use_cache": caches}
        if caches:
            self.cache = DynamicCache(config=model.config)
            # sliding windows, say, keep their own kind
            self.cache.layers = [_BufferLayer(room) if type(x) is DynamicLayer else x for x in self.cache.layers]
            self._inputs[_CACHE if self._masks_steps else _STATES] = self.cache
        if forward_takes(model, _LOGITS):
            # An index, not a number: of a slice of the hidden states PyTorch makes a batch of products, for which it
            # copies the output layer once a row.
            self._inputs[_LOGITS] = torch.tensor([-1], device=model.device)
        self._takes_positions = forward_takes(model, "position_ids")
        self._is_first = True

    def __call__(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        """(B, V) logits of the token that follows (B, n) ids, which are at the (B, n) positions of their rows.

        mask: (B, T), 0 where one of all tokens so far is padding.
        """
        if not self._is_first or self.cache is None:
            return self._step(ids, mask, positions)
        rows, places = _distinct(torch.cat([ids, mask], dim=1))
        if len(rows) == len(places):
            return self._step(ids, mask, positions)
        logits = self._step(ids[rows], mask[rows], positions[rows])
        places = places.to(ids.device)
        self.keep(places)
        return logits[places]

    def _step(self, ids: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        inputs = dict(self._inputs)
        if self.cache is None:
            self._read = ids = ids if self._read is None else torch.cat([self._read, ids], dim=1)
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
        if self.cache is None or self._is_first or self._masks_steps:
            inputs["attention_mask"] = mask
        if self._takes_positions:
            inputs["position_ids"] = positions
        self._is_first = False
        return self.model(input_ids=ids, **inputs).logits[:, -1]

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows of the batch, some of which may be the same."""
        if self._read is not None:
            self._read = self._read[rows]
        for layer in [] if self.cache is None else self.cache.layers:
            if isinstance(layer, LinearAttentionCacheLayerMixin):
                layer.reorder_cache(rows)  # the one method that indexes states of convolutions and recurrences too
            else:
                layer.batch_select_indices(rows)


def _distinct(rows: Tensor) -> tuple[list[int], Tensor]:
    """Of (B, n) rows the indices of those that no earlier one equals, and (B,) which of these each row equals."""
    first: dict[tuple[int, ...], int] = {}
    equal = [first.setdefault(tuple(row), index) for index, row in enumerate(rows.tolist())]
    place = {index: place for place, index in enumerate(first.values())}
    return list(place), torch.tensor([place[index] for index in equal])
