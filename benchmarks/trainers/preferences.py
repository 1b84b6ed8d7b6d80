"""What both sides of the benchmark of SFT, reward model and DPO work on: a model and preference pairs, in files."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerBase

from benchmarks.ppo import workload
from benchmarks.ppo.cases import SIZES
from benchmarks.trainers.cases import Lengths, TrainerCase
from rlhf_lib.base import model as base
from rlhf_lib.common.rows import Message, read_jsonl, write_jsonl
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_ids, prompt_ids

MODEL, ROWS = "model", "rows.jsonl"

_SPREAD = 0.6  # standard deviation of the lengths' logarithm
_MEDIAN = 0.3  # where the median lies between the shortest and the longest


def write(case: TrainerCase, task: str, folder: Path, cache: Path) -> None:
    """Write the model of a task, and the rows, into `folder`; tokenizers are kept in `cache`."""
    tokenizer = workload.fresh_tokenizer(SIZES[case.size]["vocab_size"], cache)
    config = workload.gpt2_config(case.size, tokenizer)
    torch.manual_seed(case.seed + 1)
    # The classifier with its head, which each side would otherwise draw for itself.
    model = GPT2ForSequenceClassification(config) if task == "reward" else GPT2LMHeadModel(config)
    base.complete(model, tokenizer, case.seed)
    models.save(model, tokenizer, folder / MODEL)
    write_jsonl(folder / ROWS, pairs(tokenizer, case))


def pairs(tokenizer: PreTrainedTokenizerBase, case: TrainerCase) -> list[dict[str, Any]]:
    """As many preference pairs of real text as a block has; `completion` is the chosen answer once more.

    No dialogue is longer than `max_length`: nothing is cut or dropped, on either side.
    """
    draw = random.Random(case.seed)
    ids = workload.text_ids(tokenizer)
    rows = []
    for index in range(case.rows):
        wanted = length(draw, case.prompt_lengths)
        prompt = workload.prompt(tokenizer, ids, wanted, draw)
        chosen, rejected = (
            answer(tokenizer, ids, prompt, min(length(draw, case.answer_lengths), case.max_length - wanted), draw)
            for _ in range(2)
        )
        rows.append({"id": str(index), "prompt": prompt, "completion": chosen, "chosen": chosen, "rejected": rejected})
    return rows


def length(draw: random.Random, lengths: Lengths) -> int:
    """A length in tokens between these two, spread as in preference data: many short ones and a few long ones."""
    low, high = lengths
    median = low + _MEDIAN * (high - low)
    while True:
        drawn = round(median * draw.lognormvariate(0.0, _SPREAD))
        if low <= drawn <= high:
            return drawn


def answer(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], prompt: list[Message], wanted: int, draw: random.Random
) -> list[Message]:
    """An assistant's message of `wanted` tokens of real text, its EOS among them."""
    before = len(prompt_ids(tokenizer, prompt))

    def count(text: str) -> int:
        return len(dialogue_ids(tokenizer, prompt, text)) - before

    return [{"role": "assistant", "content": workload.text(tokenizer, ids, wanted, count, draw)}]


def tokens(tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, Any]], task: str) -> int:
    """The tokens that a pass over the rows is about: prompts and answers, both answers of a pair, without padding."""
    answers = ("completion",) if task == "sft" else ("chosen", "rejected")
    return sum(len(dialogue_ids(tokenizer, row["prompt"], row[key][0]["content"])) for row in rows for key in answers)


def block_tokens(folder: Path, task: str) -> int:
    """`tokens` of what `write` wrote into `folder`."""
    return tokens(models.load_tokenizer(folder / MODEL), read_jsonl(folder / ROWS), task)
