"""Log-probabilities of responses: the one function that gives old, new and reference log-probs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf_lib.common.chunks import chunks
from rlhf_lib.common.launching import num_processes
from rlhf_lib.models.attention import takes_packing
from rlhf_lib.models.forward import logits_where
from rlhf_lib.models.hardware import favours_few_calls
from rlhf_lib.models.output_layer import CHUNK, of_chunks
from rlhf_lib.models.packing import marked, packed_inputs
from rlhf_lib.models.processes import with_bar
from rlhf_lib.models.support import Support, joined

SAVED_BATCHES = 128  # that are read before their log-probs are saved: the most that a kill costs


@dataclass(frozen=True, slots=True)
class Response:
    """What was sampled: tokens, with the one that stops where there is one, and whether the response came to its end.

    `support` is given where each was drawn from a part of the vocabulary. `stopped`: the last token is one that stops,
    and no part of the text.
    """

    ids: list[int]
    finished: bool
    support: Support | None = None
    stopped: bool = False


@dataclass(frozen=True)
class Batch:
    """B prompts with their responses as one forward pass, of n response tokens together.

    Masks are made from the lengths of the token lists, never from token ids: a pad id inside a response counts as the
    token it is. Whatever is said of the response tokens is flat, (n,), row after row.
    """

    inputs: dict[str, Any]  # keyword arguments of the model's forward
    places: Tensor  # (n,) among the flattened input_ids: of the tokens whose logits are those of a response's next one
    token_ids: Tensor  # (n,) the responses' tokens
    positions: Tensor  # (n,) their places in their responses, from 0
    support: Tensor | None = None  # (n, K) the tokens that each was drawn from, filled up with -1

    def part(self, rows: slice) -> Batch:
        """What is said of some of the response tokens."""
        support = None if self.support is None else self.support[rows]
        return replace(self, token_ids=self.token_ids[rows], positions=self.positions[rows], support=support)


def collate(model: PreTrainedModel, prompts: Sequence[list[int]], responses: Sequence[Response], pad_id: int) -> Batch:
    """Token lists as one `Batch`, end to end where the model takes that, else padded. No response is empty.

    End to end, what prompts begin with in common is there once.
    """
    device = model.device
    flat = torch.tensor([token for response in responses for token in response.ids])
    positions = torch.cat([torch.arange(len(response.ids)) for response in responses])
    rows = [prompt + response.ids for prompt, response in zip(prompts, responses, strict=True)]
    columns = [range(len(prompt) - 1, len(row) - 1) for prompt, row in zip(prompts, rows, strict=True)]
    if takes_packing(model):
        inputs = packed_inputs(rows, [of_row[0] for of_row in columns], device)
        places = inputs["packing"].places(columns)
    else:
        inputs = _padded(rows, pad_id, device)
        width = inputs["input_ids"].size(1)
        places = torch.tensor([row * width + column for row, of_row in enumerate(columns) for column in of_row])
    supports = [response.support for response in responses if response.support is not None]
    return Batch(
        inputs,
        places.to(device),
        flat.to(device),
        positions.to(device),
        joined(supports).padded().to(device) if supports else None,
    )


def _padded(rows: Sequence[list[int]], pad_id: int, device: torch.device) -> dict[str, Any]:
    """Rows padded on the right: what comes before a token is then the same for every architecture."""
    input_ids = torch.full((len(rows), max(map(len, rows))), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    for place, row in enumerate(rows):
        input_ids[place, : len(row)] = torch.tensor(row)
        attention_mask[place, : len(row)] = 1
    return {
        "input_ids": input_ids.to(device),
        "attention_mask": attention_mask.to(device),
        "use_cache": False,
    }


@dataclass(frozen=True)
class Distribution:
    """How next tokens are drawn from a model's logits, less what the batch says of each token."""

    temperature: float = 1.0
    min_new_tokens: int = 0  # none of `stop_ids` can be drawn before so many tokens
    stop_ids: tuple[int, ...] = ()

    def __call__(self, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n,) log-probs of the batch's response tokens, and (n,) entropies in nats, from (n, V) logits."""
        # Finite also after the division by the temperature: 0 times minus infinity would be an entropy of NaN.
        lowest = torch.finfo(logits.dtype).min / 2 * min(self.temperature, 1.0)
        tokens = batch.token_ids
        if self.min_new_tokens > 0:
            early = (batch.positions < self.min_new_tokens).unsqueeze(1)
            is_stop = torch.zeros(logits.size(1), dtype=torch.bool, device=logits.device)
            for stop in self.stop_ids:  # one by one: a list would be copied to the device, which waits
                is_stop[stop] = True
            logits = logits.masked_fill(early & is_stop, lowest)
        if batch.support is not None:
            outside = batch.support < 0
            logits = logits.gather(1, batch.support.clamp(min=0)).masked_fill(outside, lowest)
            tokens = (batch.support == tokens.unsqueeze(1)).int().argmax(dim=1)
        return logprobs_and_entropies(logits, tokens, self.temperature)


def logprobs_and_entropies(logits: Tensor, tokens: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(n,) log-probs of the tokens and (n,) entropies (nats) under softmax(logits / temperature), of (n, V) logits."""
    return _LogProbs.apply(logits, tokens, temperature)


class _LogProbs(torch.autograd.Function):
    """Log-probs of tokens and entropies under softmax(logits / temperature), in fp32 whatever the logits are.

    Only the probabilities are kept for the backward pass, and the logits are worked on in pieces, where autograd would
    keep and walk through several (n, V) tensors. On a CPU a piece fits into its cache; on a GPU every call counts.
    """

    _PIECE = 1 << 18  # logits

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        keeps = ctx.needs_input_grad[0]
        ctx.set_materialize_grads(False)  # an output that no loss has costs nothing
        logprobs = torch.empty(tokens.shape, device=logits.device)
        entropies = torch.empty_like(logprobs)
        kept = torch.empty(logits.shape, device=logits.device) if keeps else None
        for rows in _LogProbs._pieces(logits):
            piece = logits[rows].float() / temperature
            piece -= piece.logsumexp(-1, keepdim=True)
            logprobs[rows] = piece.gather(1, tokens[rows].unsqueeze(1)).squeeze(1)
            probabilities = torch.exp(piece, out=kept[rows]) if kept is not None else piece.exp()
            with torch.autocast(piece.device.type, enabled=False):  # which takes it for a matrix product
                entropies[rows] = -torch.linalg.vecdot(probabilities, piece)
        ctx.temperature, ctx.dtype = temperature, logits.dtype
        ctx.save_for_backward(tokens, entropies, kept)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, of_logprobs: Tensor | None, of_entropies: Tensor | None) -> tuple[Tensor, None, None]:
        """d logp_t / d l_j = [j = t] - p_j        d H / d l_j = -p_j (log p_j + H)        each / temperature"""
        tokens, entropies, probabilities = ctx.saved_tensors
        of_logprobs = torch.zeros_like(entropies) if of_logprobs is None else of_logprobs
        of_logprobs = of_logprobs.unsqueeze(1) / ctx.temperature
        of_entropies = None if of_entropies is None else of_entropies.unsqueeze(1) / ctx.temperature
        gradient = torch.empty(probabilities.shape, dtype=ctx.dtype, device=probabilities.device)
        for rows in _LogProbs._pieces(probabilities):
            piece = probabilities[rows]
            weight = -of_logprobs[rows]
            if of_entropies is not None:
                surprise = piece.clamp(min=torch.finfo(piece.dtype).tiny).log()
                weight = weight - of_entropies[rows] * (surprise + entropies[rows].unsqueeze(1))
            gradient[rows] = (piece * weight).scatter_add_(1, tokens[rows].unsqueeze(1), of_logprobs[rows])
        return gradient, None, None

    @staticmethod
    def _pieces(logits: Tensor) -> Iterator[slice]:
        size = CHUNK if favours_few_calls(logits.device) else _LogProbs._PIECE
        size = max(1, size // logits.size(1))
        return (slice(start, start + size) for start in range(0, logits.size(0), size))


def response_logits(model: PreTrainedModel, batch: Batch) -> Tensor:
    """(n, V) logits of the response tokens' predecessors; none are computed for the rest of the prompts."""
    return logits_where(model, marked(batch.places, batch.inputs), batch.inputs)


def response_distribution(model: PreTrainedModel, batch: Batch, distribution: Distribution) -> tuple[Tensor, Tensor]:
    """(n,) log-probs of the response tokens, and (n,) entropies in nats of what they were drawn from."""
    if favours_few_calls(model.device):
        logprobs, entropies = of_chunks(
            model, batch.inputs, batch.places, lambda logits, rows: distribution(logits, batch.part(rows))
        )
        return logprobs, entropies
    return distribution(response_logits(model, batch), batch)


def response_logprobs(model: PreTrainedModel, batch: Batch, distribution: Distribution = Distribution()) -> Tensor:
    """(n,) log-probs of the response tokens."""
    return response_distribution(model, batch, distribution)[0]


@torch.no_grad()
def token_logprobs(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    responses: Sequence[Response],
    pad_id: int,
    distribution: Distribution,
    batch_size: int,
    progress: str | None = None,
) -> list[Tensor]:
    """Of each response, in the given order, its tokens' log-probs in nats, in fp64 on the CPU; those of equal ones are
    computed once. `progress` names a progress bar."""
    keys = [(tuple(prompt), tuple(response.ids)) for prompt, response in zip(prompts, responses, strict=True)]
    distinct = list({key: i for i, key in enumerate(keys)}.values())
    found: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}
    lengths = [len(prompts[i]) + len(responses[i].ids) for i in distinct]
    together = [keys[i][0] for i in distinct] if takes_packing(model) else None
    for rows in with_bar([*by_length(lengths, batch_size, together)], progress):
        chosen = [distinct[row] for row in rows]
        batch = collate(model, [prompts[i] for i in chosen], [responses[i] for i in chosen], pad_id)
        logprobs = response_logprobs(model, batch, distribution).cpu().double()  # Apple's GPUs have none
        for i, part in zip(chosen, logprobs.split([len(responses[i].ids) for i in chosen]), strict=True):
            found[keys[i]] = part
    return [found[key] for key in keys]


def sequence_logprobs(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    responses: Sequence[Response],
    pad_id: int,
    distribution: Distribution = Distribution(),
    *,
    batch_size: int,
    progress: str | None = None,
) -> list[float]:
    """Each response's summed log-prob in nats, in the given order; `batch_size` responses to a forward pass."""
    found = token_logprobs(model, prompts, responses, pad_id, distribution, batch_size, progress)
    return [logprobs.sum().item() for logprobs in found]


def rows_at_once(batch_size: int) -> int:
    """How many rows a stage reads before it saves their log-probs, in all processes together."""
    return SAVED_BATCHES * batch_size * num_processes()


def by_length(
    lengths: Sequence[int], batch_size: int, prompts: Sequence[Hashable] | None = None
) -> Iterator[list[int]]:
    """Indices in batches of similar length, so that little is padded.

    prompts: what tells which rows begin with the same prompt. They stay together, so that it is read once: by the
    length of the longest of them.
    """
    of_rows: Sequence[Hashable] = range(len(lengths)) if prompts is None else prompts
    longest: dict[Hashable, int] = {}
    for prompt, length in zip(of_rows, lengths, strict=True):
        longest[prompt] = max(length, longest.get(prompt, 0))
    rank = {prompt: (length, number) for number, (prompt, length) in enumerate(longest.items())}
    order = sorted(range(len(lengths)), key=lambda row: (rank[of_rows[row]], lengths[row]))
    return chunks(order, batch_size)
