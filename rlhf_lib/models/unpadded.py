"""Forward passes of padded batches that compute nothing on the padding.

Trainers hand the model rows padded to one length. `skip_padding` gives a model a forward that lays the rows end to end
(`attention.py`), reads once what they begin with in common, computes logits of the labelled tokens alone, and gives
back what the padded forward would: TRL's losses and metrics stay TRL's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput, SequenceClassifierOutputWithPast

from rlhf_lib.models.attention import takes_packing
from rlhf_lib.models.hardware import favours_few_calls
from rlhf_lib.models.logprobs import logprobs_and_entropies
from rlhf_lib.models.packing import marked, packed_inputs

Forward = Callable[..., Any]

_PIECE = 1 << 18  # logits, which fit into a CPU's cache


@dataclass
class TokenOutputs(ModelOutput):
    """What TRL's trainers read of a language model's forward; each (B, T - 1), 0 without a label. Not the loss, which
    they make of the log-probs."""

    log_probs: Tensor | None = None
    entropy: Tensor | None = None
    log_sum_sq_probs: Tensor | None = None  # where it is asked for
    mean_logits: Tensor | None = None
    is_top1: Tensor | None = None
    label_mask: Tensor | None = None


def skip_padding(model: PreTrainedModel, squares: bool = False) -> None:
    """Replace the forward of a causal language model or a decoder's classifier by one without padding, if the model's
    attention can take that. A trainer's own forward of the language model (TRL's) must be in place before: on a GPU its
    output layer is used, on a CPU ours is quicker. squares: `log_sum_sq_probs` is given too."""
    if not takes_packing(model):
        return
    if model.get_output_embeddings() is not None:
        model.forward = MethodType(_language_model_forward(model.forward, squares), model)
    elif hasattr(model, "score"):
        model.forward = MethodType(_classifier_forward, model)


def _host_rows(attention_mask: Tensor, *given: Tensor) -> list[list[list[int]]]:
    """Of each of (B, T) tensors its rows without the padding, as lists; a device is waited for once."""
    mask, *lists = torch.stack([attention_mask.long(), *given]).tolist()
    return [[list(compress(row, real)) for row, real in zip(rows, mask, strict=True)] for rows in lists]


def _language_model_forward(padded_forward: Forward, squares: bool) -> Forward:
    """A method that stands for TRL's fused forward, and leaves every other call to `padded_forward`."""

    def forward(
        self: PreTrainedModel,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        fused_lm_head: bool = False,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head:
            given = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels, **kwargs}
            return padded_forward(**{name: value for name, value in given.items() if value is not None})
        assert input_ids is not None and attention_mask is not None and labels is not None
        device, labelled = input_ids.device, labels[:, 1:] != -100
        rows, next_tokens = _host_rows(attention_mask, input_ids, pad(labels[:, 1:], (0, 1), value=-100))
        columns = [[column for column, token in enumerate(row) if token != -100] for row in next_tokens]
        own = [of_row[0] if of_row else len(row) for of_row, row in zip(columns, rows, strict=True)]
        packed = packed_inputs(rows, own, device)
        places = packed["packing"].places(columns)
        if favours_few_calls(device):
            shift_labels = torch.full(packed["input_ids"].shape, -100)
            shift_labels[0, places] = torch.tensor([token for row in next_tokens for token in row if token != -100])
            output = padded_forward(**packed, shift_labels=shift_labels.to(device), fused_lm_head=True)
            return _back_in_rows(output, places.to(device), labelled)
        logits = padded_forward(**packed, logits_to_keep=marked(places, packed)).logits
        return _token_outputs(logits, labels[:, 1:][labelled], labelled, squares)

    return forward


def _back_in_rows(packed: Any, places: Tensor, labelled: Tensor) -> TokenOutputs:
    """What TRL's output layer, which makes few logits at a time, gives of packed tokens at (n,) places, as rows."""

    def padded(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        return x.new_zeros(labelled.shape).masked_scatter(labelled, x.flatten().index_select(0, places))

    names = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
    return TokenOutputs(*(padded(getattr(packed, name)) for name in names), label_mask=labelled)


def _token_outputs(logits: Tensor, tokens: Tensor, labelled: Tensor, squares: bool) -> TokenOutputs:
    """What TRL reads of (n, V) logits of the n `tokens`, which lie where `labelled` (B, T) is True."""
    logprobs, entropies = logprobs_and_entropies(logits, tokens)
    with torch.no_grad():
        mean_logits, is_top1 = logits.mean(dim=-1, dtype=torch.float32), logits.argmax(dim=-1) == tokens

    def padded(x: Tensor) -> Tensor:
        return x.new_zeros(labelled.shape).masked_scatter(labelled, x)

    return TokenOutputs(
        log_probs=padded(logprobs),
        entropy=padded(entropies),
        log_sum_sq_probs=padded(_log_sum_sq_probs(logits)) if squares else None,
        mean_logits=padded(mean_logits),
        is_top1=padded(is_top1),
        label_mask=labelled,
    )


@torch.no_grad()
def _log_sum_sq_probs(logits: Tensor) -> Tensor:
    """(n,) log of the sum of all tokens' squared probabilities, of (n, V) logits; a few rows of them at a time."""
    parts = (part.float() for part in logits.split(max(1, _PIECE // logits.size(1))))
    return torch.cat([(2 * part).logsumexp(-1) - 2 * part.logsumexp(-1) for part in parts])


def _classifier_forward(
    self: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
) -> SequenceClassifierOutputWithPast:
    """(B, labels) logits at each row's last token that is not the pad token, as transformers' classifiers read them."""
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    pad_id = self.config.get_text_config().pad_token_id
    (rows,) = _host_rows(attention_mask, input_ids)
    packed = packed_inputs(rows, [len(row) for row in rows], input_ids.device)
    last = [max((column for column, token in enumerate(row) if token != pad_id), default=0) for row in rows]
    places = packed["packing"].places([column] for column in last)
    hidden = self.base_model(**packed).last_hidden_state[0]
    return SequenceClassifierOutputWithPast(logits=self.score(hidden.index_select(0, places.to(hidden.device))))
