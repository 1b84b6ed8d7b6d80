"""How tokens are drawn: settings, random numbers, restricted distributions; and prompts and responses as tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlhf_lib.common.rows import Message
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.generation.params import LEAST_PROMPT
from rlhf_lib.models.chat import last_tokens, opening_ids, prompt_ids
from rlhf_lib.models.logprobs import Response
from rlhf_lib.models.seeds import seeded


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled; the names are those of transformers' GenerationConfig."""

    max_new_tokens: int
    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # 0: all tokens
    top_p: float = 1.0
    min_new_tokens: int = 0
    stop_strings: tuple[str, ...] = ()
    no_repeat_ngram_size: int = 0  # 0: any may be repeated
    num_beams: int = 1  # of beam search, where the temperature is 0

    @property
    def is_beam_search(self) -> bool:
        """Whether the likeliest of several beams is taken, instead of the likeliest token each time."""
        return self.temperature == 0 and self.num_beams > 1

    @property
    def is_restricted(self) -> bool:
        """Whether a token is drawn from a part of the vocabulary only."""
        return self.temperature > 0 and (self.top_k > 0 or self.top_p < 1.0)


def random_numbers(rows: int, sampling: Sampling, *seeds: int) -> Tensor:
    """(rows, max_new_tokens) uniform in [0, 1): what `generate` draws with."""
    return torch.rand(rows, sampling.max_new_tokens, generator=seeded("sampling", *seeds))


def draw(probabilities: Tensor, noise: Tensor) -> Tensor:
    """(B,) indices drawn from (B, K) probabilities by the inverse of their distribution function at (B, 1) noise.

    Of probabilities that are NaN the last: a GPU that looks up a token behind the vocabulary ends the process, where
    the loss, NaN too, says what diverged.
    """
    cumulative = probabilities.cumsum(dim=-1)
    found = torch.searchsorted(cumulative, noise * cumulative[:, -1:], right=True).squeeze(1)
    return found.clamp_(max=probabilities.size(1) - 1)


def restrict(logits: Tensor, top_k: int, top_p: float, trims: bool = True) -> tuple[Tensor, Tensor]:
    """(B, K) probabilities of the likeliest tokens, falling, and their (B, K) ids, filled up with 0 and -1.

    top_k keeps the k likeliest; top_p, of these, the fewest that together have at least that probability
    [Holtzman 2020, arXiv:1904.09751]. `logits` are (B, V), at the sampling temperature. trims: K is the most that a row
    has, to know which waits for the device; else all that were looked at.
    """
    count = min(top_k, logits.size(1)) if top_k > 0 else logits.size(1)
    probabilities, ids = logits.topk(count, dim=-1)
    probabilities = probabilities.softmax(dim=-1)
    outside = probabilities.cumsum(dim=-1).sub_(probabilities) >= top_p  # in place: of 150,000 tokens they are large
    outside[:, 0] = False
    width = int((~outside).sum(dim=-1).max()) if trims else count
    probabilities = probabilities.masked_fill_(outside, 0.0)[:, :width]
    return probabilities.div_(probabilities.sum(dim=-1, keepdim=True)), ids.masked_fill_(outside, -1)[:, :width]


def repeats(ids: Tensor, mask: Tensor, size: int, vocabulary: int) -> Tensor:
    """(B, vocabulary) True for each token behind (B, T) ids, padded on the left where the mask is 0, with which a row
    would end in `size` tokens that it has had in this order before, as transformers' NoRepeatNGramLogitsProcessor."""
    if ids.size(1) < size:
        return torch.zeros(len(ids), vocabulary, dtype=torch.bool, device=ids.device)
    grams = ids.unfold(1, size, 1)  # (B, T - size + 1, size)
    is_begun = (grams[..., :-1] == ids[:, None, ids.size(1) - size + 1 :]).all(dim=-1)
    is_begun &= mask[:, : grams.size(1)].bool()
    counts = torch.zeros(len(ids), vocabulary, dtype=torch.int32, device=ids.device)
    return counts.scatter_add_(1, grams[..., -1], is_begun.int()) > 0


def response_text(tokenizer: PreTrainedTokenizerBase, response: Response) -> str:
    """A response as text, without special tokens and without the one that stopped it, special or not; and without what
    the template writes before an answer, if that has words between special tokens (`opening_ids`), and what stands
    before it, as thoughts in a channel of their own.

    Spaces before punctuation stay, whatever the tokenizer's config says.
    """
    ids, opening = response.ids[:-1] if response.stopped else response.ids, opening_ids(tokenizer)
    ends = range(len(ids), len(opening) - 1, -1)
    start = next((end for end in ends if tuple(ids[end - len(opening) : end]) == opening), 0) if opening else 0
    return tokenizer.decode(ids[start:], skip_special_tokens=True, clean_up_tokenization_spaces=False)


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[Message]],
    max_new_tokens: int,
    context: int | None,
    param: str,
) -> list[list[int]]:
    """Token ids of prompts, each cut at its beginning, but for a BOS token, so that `max_new_tokens` fit into the
    context.

    A `ParamsError` that names `param` when not even an empty prompt would fit.
    """
    room = prompt_room(max_new_tokens, context, param)
    return [last_tokens(tokenizer, prompt_ids(tokenizer, prompt), room) for prompt in prompts]


def prompt_room(max_new_tokens: int, context: int | None, param: str) -> int:
    """The tokens that a prompt may have beside `max_new_tokens`; 0 where the context is not known.

    A `ParamsError` that names `param` when these are fewer than `LEAST_PROMPT`.
    """
    if context is None:
        return 0
    room = context - max_new_tokens
    if room < LEAST_PROMPT:
        raise ParamsError(
            f"params.yaml: {param}: {max_new_tokens} new tokens leave no room for a prompt in the model's context of "
            f"{context} tokens; set it to at most {context - LEAST_PROMPT}"
        )
    return room
