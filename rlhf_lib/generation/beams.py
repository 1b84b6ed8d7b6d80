"""Beam search, by transformers' `generate()`."""

from __future__ import annotations

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.generation.sampling import Sampling
from rlhf_lib.models.logprobs import Response


def beam_search(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[list[int]], sampling: Sampling
) -> list[Response]:
    """The response of the highest log-prob per token among `num_beams` beams, to each prompt."""
    batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(model.device)
    own = model.generation_config
    # in the model's place, not beside it: what it sets itself, such as a penalty, would be used where ours sets nothing
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=sampling.num_beams,
        max_new_tokens=sampling.max_new_tokens,
        min_new_tokens=sampling.min_new_tokens,
        no_repeat_ngram_size=sampling.no_repeat_ngram_size,
        stop_strings=list(sampling.stop_strings) or None,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    try:
        sequences = model.generate(
            batch["input_ids"],
            attention_mask=batch["attention_mask"],
            tokenizer=tokenizer if sampling.stop_strings else None,
        )
    finally:
        model.generation_config = own
    return [_response(ids, tokenizer.eos_token_id) for ids in sequences[:, batch["input_ids"].size(1) :].tolist()]


def _response(ids: list[int], eos_id: int) -> Response:
    finished = eos_id in ids
    return Response(ids[: ids.index(eos_id) + 1] if finished else ids, finished)
