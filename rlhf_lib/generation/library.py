"""Answers by transformers' own `generate()`, for what the loop of `decoding` does not do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import StoppingCriteriaList, StopStringCriteria

from rlhf_lib.generation.said import text_ends
from rlhf_lib.models.logprobs import Response
from rlhf_lib.models.stops import stop_ids, up_to_stop


def by_library(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    stop_strings: Sequence[str] = (),
    **options: Any,
) -> list[Response]:
    """Responses to each prompt, one after the other where `num_return_sequences` asks for several.

    `options` are those of GenerationConfig, which the model's own does not add to.
    """
    batch = tokenizer.pad({"input_ids": list(prompts)}, padding_side="left", return_tensors="pt").to(model.device)
    stops, ends = stop_ids(model), text_ends(tokenizer, stop_strings)
    with configured(model, tokenizer, **options):
        # the mask gives each row the positions that it has without its padding
        sequences = model.generate(
            batch["input_ids"],
            attention_mask=batch["attention_mask"],
            stopping_criteria=None if ends is None else StoppingCriteriaList([ends]),
        )
    answers = sequences[:, batch["input_ids"].size(1) :].tolist()
    if ends is None:
        return [Response(ids, stopped, stopped=stopped) for ids, stopped in (up_to_stop(ids, stops) for ids in answers)]
    return [_ended_by_text(ids, stops, tokenizer.pad_token_id, ends) for ids in answers]


@contextmanager
def configured(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **options: Any) -> Iterator[None]:
    """A context in which the model generates by these options of GenerationConfig, and stops at its own tokens.

    In the model's place, not beside it: what it sets itself, such as a penalty, would be used where ours sets nothing.
    """
    own, stops = model.generation_config, list(stop_ids(model))
    model.generation_config = GenerationConfig(
        **options, pad_token_id=tokenizer.pad_token_id, eos_token_id=stops or None
    )
    try:
        yield
    finally:
        model.generation_config = own


def _ended_by_text(ids: list[int], stops: tuple[int, ...], pad_id: int, text_ends: StopStringCriteria) -> Response:
    """A response that a text may have ended, behind which `generate()` fills up with padding."""
    said, stopped = up_to_stop(ids, stops)
    if stopped and _ends(said[:-1], text_ends):  # filled up with a token that stops: Qwen's pad token, or pad is 0
        return Response(said[:-1], True)
    while not stopped and len(said) > 1 and said[-1] == pad_id:
        said.pop()
    return Response(said, stopped or _ends(said, text_ends), stopped=stopped)


def _ends(ids: list[int], text_ends: StopStringCriteria) -> bool:
    """Whether one of the texts ends with, or in, the last of these tokens."""
    return len(ids) > 0 and bool(text_ends(torch.tensor([ids]), None)[0])
