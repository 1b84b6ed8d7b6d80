"""Log-probabilities of responses: the one function that gives old, new and reference log-probs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Batch:
    """B dialogues: prompts padded on the left to P tokens, responses on the right to R, side by side.

    The masks are made from the lengths of the token lists, never from token ids: a pad id inside a response counts
    as the token it is.
    """

    input_ids: Tensor  # (B, P + R) int64
    attention_mask: Tensor  # (B, P + R) int64, 1 on real tokens
    response_mask: Tensor  # (B, R) bool, True on the response's tokens

    @property
    def response_ids(self) -> Tensor:
        """(B, R)"""
        return self.input_ids[:, -self.response_mask.size(1) :]

    @property
    def position_ids(self) -> Tensor:
        """(B, P + R): each row's first real token has position 0, however far it is padded."""
        return (self.attention_mask.cumsum(dim=1) - 1).clamp(min=0)


def collate(prompts: Sequence[list[int]], responses: Sequence[list[int]], pad_id: int, device: torch.device) -> Batch:
    """Token lists as one `Batch`. Responses must not be empty."""
    prompt_width, response_width = max(map(len, prompts)), max(map(len, responses))
    input_ids = torch.full((len(prompts), prompt_width + response_width), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        span = slice(prompt_width - len(prompt), prompt_width + len(response))
        input_ids[row, span] = torch.tensor(prompt + response)
        attention_mask[row, span] = 1
    response_mask = attention_mask[:, prompt_width:].bool()
    return Batch(input_ids.to(device), attention_mask.to(device), response_mask.to(device))


def response_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(B, R, V) logits, the r-th of which predicts the r-th response token; none are computed for the prompt."""
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        logits_to_keep=batch.response_mask.size(1) + 1,
        use_cache=False,
    )
    return output.logits[:, :-1].float()


def token_logprobs(logits: Tensor, token_ids: Tensor, temperature: float = 1.0) -> Tensor:
    """(B, R) log-probs of `token_ids` under softmax(logits / temperature), from (B, R, V) logits."""
    logits = logits / temperature
    return logits.gather(-1, token_ids.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def response_logprobs(model: PreTrainedModel, batch: Batch, temperature: float = 1.0) -> Tensor:
    """(B, R) log-probs of the responses' tokens at the sampling temperature; 0 where there is no token."""
    logprobs = token_logprobs(response_logits(model, batch), batch.response_ids, temperature)
    return logprobs.masked_fill(~batch.response_mask, 0.0)


@torch.no_grad()
def sequence_logprobs(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    pad_id: int,
    temperature: float = 1.0,
    batch_size: int = 64,
) -> list[float]:
    """Each response's summed log-prob in nats, in the given order."""
    sums = [0.0] * len(prompts)
    for rows in by_length([len(p) + len(r) for p, r in zip(prompts, responses, strict=True)], batch_size):
        batch = collate([prompts[i] for i in rows], [responses[i] for i in rows], pad_id, model.device)
        for i, total in zip(rows, response_logprobs(model, batch, temperature).double().sum(1).tolist(), strict=True):
            sums[i] = total
    return sums


def by_length(lengths: Iterable[int], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of like length, so that little is padded."""
    order = sorted(enumerate(lengths), key=lambda item: item[1])
    for start in range(0, len(order), batch_size):
        yield [index for index, _ in order[start : start + batch_size]]
