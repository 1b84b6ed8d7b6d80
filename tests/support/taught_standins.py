"""Stand-ins that have learnt to answer: stage base's completion, then some steps of stage sft's own trainer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chat_standins import COLOURS, THINGS, stand_in
from trl_trainers import TRAINER, assistant, dataset, user

from rlhf_lib.base import model as base
from rlhf_lib.models import loading as models
from rlhf_lib.sft import trainer as sft
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import weights

if TYPE_CHECKING:
    from rlhf_lib.training.checkpoint import CheckpointDir

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


def complete(name: str, folder: Path) -> Path:
    """A stand-in as stage base leaves it."""
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
