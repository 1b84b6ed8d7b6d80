"""What both sides of the benchmark work on: tokenizer, models and prompts, the same on every machine."""

from __future__ import annotations

import json
import math
import os
import random
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
)

from benchmarks.ppo.cases import SIZES, Case
from rlhf_lib.base import model as base
from rlhf_lib.common.files import write_json
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import Message, prompt_ids
from rlhf_lib.scoring.reward_model import STATISTICS_FILE

POLICY, REWARD, PROMPTS = "policy", "reward", "prompts.json"

# Merges of a large vocabulary need more text than the descriptions of the installed packages.
_LARGE_VOCABULARY = 8192
_SOURCE_FILES = 400


def write(case: Case, folder: Path, cache: Path, count: int | None = None) -> None:
    """Write policy, reward model and `count` prompts (by default, a batch) of a case into `folder`; tokenizers are kept
    in `cache`."""
    tokenizer = fresh_tokenizer(SIZES[case.size]["vocab_size"], cache)
    config = gpt2_config(case.size, tokenizer)
    torch.manual_seed(case.seed + 1)
    policy = GPT2LMHeadModel(config)
    base.complete(policy, tokenizer, case.seed)
    if case.eos_probability is not None:
        bias_eos(policy, case.eos_probability, case.ours.get("temperature", 1.0))
    models.save(policy, tokenizer, folder / POLICY)
    torch.manual_seed(case.seed + 2)
    models.save(GPT2ForSequenceClassification(config), tokenizer, folder / REWARD)
    write_json(folder / REWARD / STATISTICS_FILE, {"mean": 0.0, "std": 1.0})
    messages = prompts(tokenizer, count or case.batch, case.prompt_lengths, case.seed)
    (folder / PROMPTS).write_text(json.dumps(messages), encoding="utf-8")


def read_prompts(folder: Path) -> list[list[Message]]:
    """The prompts that `write` wrote, as messages."""
    return json.loads((folder / PROMPTS).read_text(encoding="utf-8"))


def fresh_tokenizer(vocab_size: int, cache: Path) -> PreTrainedTokenizerBase:
    """A byte-level BPE of `vocab_size` tokens learnt from text that every machine has: its installed packages."""
    path = cache / f"tokenizer-{vocab_size}"
    if not path.exists():
        tokenizer = base.fresh_tokenizer(_texts(vocab_size), vocab_size)
        if len(tokenizer) != vocab_size:
            raise RuntimeError(f"the installed packages' text is enough for {len(tokenizer)} of {vocab_size} tokens")
        unfinished = path.with_name(f"{path.name}.{os.getpid()}")
        tokenizer.save_pretrained(unfinished)
        unfinished.replace(path)
    return AutoTokenizer.from_pretrained(path)


def prompts(tokenizer: PreTrainedTokenizerBase, count: int, lengths: tuple[int, int], seed: int) -> list[list[Message]]:
    """`count` prompts of real text, a user's message each; templated, their lengths are uniform in `lengths`."""
    draw = random.Random(seed)
    ids = text_ids(tokenizer)
    return [prompt(tokenizer, ids, draw.randint(*lengths), draw) for _ in range(count)]


def prompt(tokenizer: PreTrainedTokenizerBase, ids: list[int], wanted: int, draw: random.Random) -> list[Message]:
    """A user's message of real text, of `wanted` tokens once it is templated."""

    def messages(content: str) -> list[Message]:
        return [{"role": "user", "content": content}]

    return messages(text(tokenizer, ids, wanted, lambda content: len(prompt_ids(tokenizer, messages(content))), draw))


def text_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The real text that prompts and answers are cut from, in tokens."""
    return tokenizer("\n".join(_descriptions()), add_special_tokens=False, verbose=False)["input_ids"]


def text(
    tokenizer: PreTrainedTokenizerBase, ids: list[int], wanted: int, count: Callable[[str], int], draw: random.Random
) -> str:
    """A piece of the text `ids` that is `wanted` tokens long by `count`, which adds those of the template."""
    size = wanted - count("")
    while True:  # a slice of tokens, decoded, may be other tokens when it is encoded again
        start = draw.randrange(len(ids) - wanted)
        piece = tokenizer.decode(ids[start : start + size])
        if count(piece) == wanted:
            return piece


@torch.no_grad()
def bias_eos(model: GPT2LMHeadModel, probability: float, temperature: float) -> None:
    """Let a freshly drawn model give its EOS about this probability at this temperature, in whatever state.

    The bias of the last layer norm adds c to the EOS logit when it is c w / |w|^2 for the EOS embedding w. The other
    logits z are about normal with the norm's unit-variance states, which makes their mean exp(z / T) known.
    """
    embeddings = model.get_input_embeddings().weight
    eos = embeddings[model.config.eos_token_id]
    variance = embeddings.square().sum(dim=1).mean().item() / temperature**2
    odds = probability / (1 - probability) * len(embeddings)
    shift = temperature * (math.log(odds) + variance / 2)
    model.transformer.ln_f.bias.copy_(shift * eos / eos.dot(eos))


def gpt2_config(size: str, tokenizer: PreTrainedTokenizerBase) -> GPT2Config:
    """GPT-2's published shape, less the dropout, which both sides switch off."""
    return GPT2Config(
        **SIZES[size],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        summary_first_dropout=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
    )


def _texts(vocab_size: int) -> Iterator[str]:
    yield from _descriptions()
    if vocab_size > _LARGE_VOCABULARY:
        for file in sorted(_packages().glob("transformers/**/*.py"))[:_SOURCE_FILES]:
            yield file.read_text(encoding="utf-8")


def _descriptions() -> Iterator[str]:
    for file in sorted(_packages().glob("*.dist-info/METADATA")):
        yield file.read_text(encoding="utf-8", errors="replace")


def _packages() -> Path:
    return Path(sysconfig.get_path("purelib"))
