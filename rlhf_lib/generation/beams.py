"""Beam search, by transformers' `generate()`."""

from __future__ import annotations

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.generation import StopStringCriteria

from rlhf_lib.generation.sampling import Sampling
from rlhf_lib.models.logprobs import Response
from rlhf_lib.models.stops import stop_ids, up_to_stop


def beam_search(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], sampling: Sampling
) -> list[Response]:
    """The response of the highest log-prob per token among `num_beams` beams, to each prompt."""
    batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(model.device)
    own, stops = model.generation_config, stop_ids(model)
    # in the model's place, not beside it: what it sets itself, such as a penalty, would be used where ours sets nothing
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=sampling.num_beams,
        max_new_tokens=sampling.max_new_tokens,
        min_new_tokens=sampling.min_new_tokens,
        no_repeat_ngram_size=sampling.no_repeat_ngram_size,
        stop_strings=list(sampling.stop_strings) or None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=list(stops) or None,
    )
    try:
        sequences = model.generate(
            batch["input_ids"],
            attention_mask=batch["attention_mask"],
            tokenizer=tokenizer if sampling.stop_strings else None,
        )
    finally:
        model.generation_config = own
    answers = sequences[:, batch["input_ids"].size(1) :].tolist()
    if not sampling.stop_strings:
        return [Response(ids, stopped, stopped=stopped) for ids, stopped in (up_to_stop(ids, stops) for ids in answers)]
    text_ends = StopStringCriteria(tokenizer, list(sampling.stop_strings))
    return [_ended_by_text(ids, stops, tokenizer.pad_token_id, text_ends) for ids in answers]


def _ended_by_text(ids: list[int], stops: tuple[int, ...], pad_id: int, text_ends: StopStringCriteria) -> Response:
    """A response that a text may have ended, behind which `generate()` fills up with padding."""
    said, stopped = up_to_stop(ids, stops)
    while not stopped and len(said) > 1 and said[-1] == pad_id:
        said.pop()
    return Response(said, stopped or bool(text_ends(torch.tensor([said]), None)[0]), stopped=stopped)
