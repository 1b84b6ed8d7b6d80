"""The greedy answers of a model's directory, by transformers alone and by our sampler.

PYTHONPATH=.:tests/support python tests/support/same_greedy.py models/dpo data/splits/test.jsonl
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from rlhf_lib.common.rows import Message, read_jsonl
from rlhf_lib.generation.decoding import generate
from rlhf_lib.generation.sampling import Sampling, random_numbers, response_text
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import prompt_ids
from rlhf_lib.models.logprobs import Response

NEW_TOKENS = 48


def ours(
    folder: Path, prompts: Sequence[list[Message]], new_tokens: int = NEW_TOKENS
) -> tuple[list[Response], list[str]]:
    """Our sampler's greedy answers, as tokens and as texts."""
    policy, tokenizer = models.load_policy(folder), models.load_tokenizer(folder)
    sampling = Sampling(new_tokens, temperature=0.0)
    ids, noise = [prompt_ids(tokenizer, prompt) for prompt in prompts], random_numbers(len(prompts), sampling, 0)
    responses = generate(policy, tokenizer, ids, sampling, noise, 16)
    return responses, [response_text(tokenizer, response) for response in responses]


def theirs(folder: Path, prompts: Sequence[list[Message]], new_tokens: int = NEW_TOKENS) -> list[list[int]]:
    """The new tokens that `generate()` gives of each prompt alone, by nothing but what lies in the directory."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    answers = []
    for prompt in prompts:
        given = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        with torch.no_grad():
            output = model.generate(**given, max_new_tokens=new_tokens)
        answers.append(output[0, given["input_ids"].size(1) :].tolist())
    return answers


def piped(folder: Path, prompts: Sequence[list[Message]], new_tokens: int = NEW_TOKENS) -> list[str]:
    """The texts of `pipeline("text-generation")`."""
    answer = pipeline("text-generation", model=str(folder), device="cpu")
    said = answer(list(prompts), max_new_tokens=new_tokens, do_sample=False)
    return [one[0]["generated_text"][-1]["content"] for one in said]


def differing(folder: Path, prompts: Sequence[list[Message]], new_tokens: int = NEW_TOKENS) -> list[int]:
    """The places of the prompts to which not all three give the same answer."""
    responses, texts = ours(folder, prompts, new_tokens)
    tokens = theirs(folder, prompts, new_tokens)
    rows = zip(responses, texts, tokens, piped(folder, prompts, new_tokens), strict=True)
    return [i for i, (response, text, ids, said) in enumerate(rows) if (response.ids, text) != (ids, said)]


if __name__ == "__main__":
    place, file = sys.argv[1:]
    first = [row["prompt"] for row in read_jsonl(file)][:50]
    apart = differing(Path(place), first)
    ended = sum(response.finished for response in ours(Path(place), first)[0])
    print(f"{place}: {len(first) - len(apart)} of {len(first)} greedy answers are the same; {ended} end by themselves")
    sys.exit(bool(apart))
