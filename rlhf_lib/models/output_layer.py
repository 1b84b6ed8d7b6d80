"""The output layer in chunks of tokens, whose logits are computed again in the backward pass: for GPUs.

With a vocabulary of 150,000, the logits of 16,000 tokens are 9.7 GB in fp32. Here a chunk's are alive at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlhf_lib.models.forward import trunk
from rlhf_lib.models.layers import base_model

CHUNK = 3 << 24  # logits: 200 MB in fp32

# What is asked of a chunk: results of the same length, such as log-probs and entropies, from its logits and its place.
OfLogits = Callable[[Tensor, slice], tuple[Tensor, ...]]


def of_chunks(
    model: PreTrainedModel, inputs: Mapping[str, Any], places: Tensor, of_logits: OfLogits
) -> tuple[Tensor, ...]:
    """What `of_logits` makes of the logits at (n,) places of a forward pass's flattened tokens, each of them (n,).

    The model, which may have adapters around it, must have the forward that transformers gave it.
    """
    inner = base_model(model)
    output = trunk(inner)(**inputs)
    hidden = output.last_hidden_state.flatten(0, 1).index_select(0, places)

    def of_chunk(states: Tensor, rows: slice) -> tuple[Tensor, ...]:
        return of_logits(_logits(inner, replace(output, last_hidden_state=states.unsqueeze(0))), rows)

    size = max(1, CHUNK // inner.config.get_text_config().vocab_size)
    chunks = [slice(start, start + size) for start in range(0, len(hidden), size)]
    # nothing is random in an output layer, and to keep the generators' states would wait for the device
    found = [checkpoint(of_chunk, hidden[rows], rows, use_reentrant=False, preserve_rng_state=False) for rows in chunks]
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def _logits(model: PreTrainedModel, output: Any) -> Tensor:
    """(n, V) logits of a trunk's output of (1, n, D) last hidden states, by the model's own forward: some models scale
    their logits or cap them. Its trunk gives this output instead of computing any."""
    part = trunk(model)
    own = part.__dict__.get("forward")
    part.forward = lambda *args, **kwargs: output
    try:
        states = output.last_hidden_state
        unread = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
        return model(input_ids=unread, use_cache=False).logits[0]
    finally:
        if own is None:
            del part.forward
        else:
            part.forward = own
