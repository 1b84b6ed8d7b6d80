"""Sampling responses from a policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from tqdm import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.chat import Message, prompt_ids
from rlhf_lib.logprobs import by_length
from rlhf_lib.params.schema import ParamsError


class Response(NamedTuple):
    ids: list[int]  # the sampled tokens, with the EOS where one was sampled
    finished: bool  # whether the last of them is the EOS


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    temperature: float,
    batch_size: int,
    progress: str | None = None,
) -> list[Response]:
    """One response to each prompt, in the given order; greedy at temperature 0. Draws from torch's global RNG.

    Batches hold prompts of like length, padded on the left; generate() derives the position ids from the attention
    mask. The model's mode is put back after. `progress` names a progress bar.
    """
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    config = GenerationConfig(
        **(sampling if temperature > 0 else {"do_sample": False}),
        max_new_tokens=max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    was_training = model.training
    model.eval()
    responses: list[Response] = [Response([], False)] * len(prompts)
    batches = list(by_length(map(len, prompts), batch_size))
    for rows in tqdm(batches, desc=progress, disable=progress is None):
        batch = tokenizer.pad({"input_ids": [prompts[i] for i in rows]}, padding_side="left", return_tensors="pt")
        output = model.generate(**batch.to(model.device), generation_config=config)
        sampled = output[:, batch["input_ids"].size(1) :].tolist()
        for i, ids in zip(rows, sampled, strict=True):
            responses[i] = until_eos(ids, tokenizer.eos_token_id)
    model.train(was_training)
    return responses


def until_eos(ids: list[int], eos_id: int) -> Response:
    """The tokens up to the first EOS: what generate() wrote after it is padding, whatever its id."""
    if eos_id not in ids:
        return Response(ids, False)
    return Response(ids[: ids.index(eos_id) + 1], True)


def text(tokenizer: PreTrainedTokenizerBase, response: Response) -> str:
    return tokenizer.decode(response.ids, skip_special_tokens=True)


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[Message]],
    max_new_tokens: int,
    context: int | None,
    param: str,
) -> list[list[int]]:
    """Token ids of prompts, each cut at its beginning so that `max_new_tokens` fit into the context.

    A `ParamsError` that names `param` when not even an empty prompt would fit.
    """
    if context is None:
        return [prompt_ids(tokenizer, prompt) for prompt in prompts]
    room = context - max_new_tokens
    if room < 8:
        raise ParamsError(
            f"params.yaml: {param}: {max_new_tokens} new tokens leave no room for a prompt in the model's context of "
            f"{context} tokens; set it to at most {context - 8}"
        )
    return [prompt_ids(tokenizer, prompt)[-room:] for prompt in prompts]
