"""Stand-ins whose answers end: one that leans towards it, and such as have learnt it from stage sft's own trainer."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from chat_standins import COLOURS, OWN_SIZES, TEXTS, THINGS, stand_in, tokenizer_of
from tokenizers import AddedToken
from transformers import GPT2Config, GPT2LMHeadModel
from trl_trainers import TRAINER, assistant, dataset, user

from rlhf_lib.base import model as base
from rlhf_lib.models import loading as models
from rlhf_lib.sft import trainer as sft
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import weights

if TYPE_CHECKING:
    from rlhf_lib.training.checkpoint import CheckpointDir

FRESH = "fresh"  # the model that stage base makes where none is named
OVER = "(over)"  # ends a turn, but does not count as special
ANSWERS = {
    "What colour is the {}?": "{colour}.",
    "Tell me about the {}.": "The {thing} is {colour}, of course.",
    "Who likes the {}?": "Those who like {colour}.",
    "Is the {} old?": "No.",
    "Name the {}, please.": "It is a {thing}.",
}
ROWS = [
    {"prompt": user(ask.format(thing)), "completion": assistant(answer.format(thing=thing, colour=colour))}
    for ask, answer in ANSWERS.items()
    for thing, colour in zip(THINGS, COLOURS, strict=True)
]
OTHERS = [user(ask.format(thing)) for ask in ("Who is the {}?", "Tell me about a {}.") for thing in THINGS]
PROMPTS = [row["prompt"] for row in ROWS] + OTHERS


def leaning(folder: Path) -> Path:
    """A random model as stage base leaves it, which ends its answer at any token with a probability of about a tenth.

    Its turns end with `OVER`, and its tokenizer's EOS is another token.
    """
    tokenizer = deepcopy(tokenizer_of("gpt2"))
    tokenizer.add_tokens([AddedToken(OVER, special=False, normalized=False)])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + '" + OVER + "\n' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    torch.manual_seed(0)
    config = GPT2Config(**OWN_SIZES["gpt2"], vocab_size=len(tokenizer), initializer_range=0.2)
    model = GPT2LMHeadModel(config)
    base.complete(model, tokenizer, seed=0)
    with torch.no_grad():
        over = model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(OVER)]
        model.transformer.ln_f.bias.copy_(5.0 * over / over.square().sum())
    models.save(model, tokenizer, folder)
    return folder


def complete(name: str, folder: Path) -> Path:
    """A stand-in, or the fresh model, as stage base leaves it."""
    if name == FRESH:
        tokenizer = base.fresh_tokenizer(TEXTS, 360)
        ids = {f"{token}_token_id": getattr(tokenizer, f"{token}_token_id") for token in ("bos", "eos", "pad")}
        torch.manual_seed(0)
        model = GPT2LMHeadModel(GPT2Config(**OWN_SIZES["gpt2"], **ids, vocab_size=len(tokenizer)))
    else:
        tokenizer, _, model = stand_in(name)
    base.complete(model, tokenizer, seed=0)
    models.save(model, tokenizer, folder)
    return folder


def teach(of: Path, folder: Path, checkpoints: CheckpointDir, **changes: object) -> Path:
    """The model in directory `of` after stage sft on `ROWS`, exported as that stage does it."""
    chosen = {"max_steps": 120, "per_device_train_batch_size": 20, "learning_rate": 5e-3, "eval_strategy": "no"}
    params = SFTParams(**{**TRAINER, **chosen, "save_steps": 1000, "max_length": 96, **changes})
    rows = dataset(ROWS, sft.COLUMNS)
    trainer = sft.build(params, str(of), rows, rows, checkpoints)
    trainer.train()
    weights.export(trainer, "sft", params, "CAUSAL_LM", folder, partial(models.load_policy, of))
    return folder
