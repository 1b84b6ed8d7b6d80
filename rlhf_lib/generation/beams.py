"""Beam search, by transformers' `generate()`."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.generation.library import by_library
from rlhf_lib.generation.sampling import Sampling
from rlhf_lib.models.logprobs import Response


def beam_search(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], sampling: Sampling
) -> list[Response]:
    """The response of the highest log-prob per token among `num_beams` beams, to each prompt."""
    return by_library(
        model,
        tokenizer,
        prompts,
        sampling.stop_strings,
        do_sample=False,
        num_beams=sampling.num_beams,
        max_new_tokens=sampling.max_new_tokens,
        min_new_tokens=sampling.min_new_tokens,
        no_repeat_ngram_size=sampling.no_repeat_ngram_size,
    )
