"""What each process of a launched run of SFT, reward model or DPO does: run by launched.py."""

import json
import os
import shutil
import sys
from pathlib import Path

import torch
from kto_trainers import kto_trainer
from reward_trainers import ANSWERS, build, group, pair
from tiny_models import IN_FP32, TEXTS, Tiny
from torch.distributed.tensor import DTensor
from trained import rows, whole
from transformers import TrainerCallback
from trl_trainers import dpo_params, pair_rows, referenced, reward_trainer, sft_rows, sft_trainer, turned

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.models import hardware, processes
from rlhf_lib.scoring.reward_model import RewardModel, shared
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir


def dpo_trainer(tiny, checkpoints, rows, held_out=None, **changes):
    pairs = referenced(tiny, rows)
    validation = pairs if held_out is None else referenced(tiny, held_out)
    return dpo.build(dpo_params(**changes), 64, str(tiny.policy), pairs, validation, checkpoints)


def overfitting(tiny, checkpoints, changes):
    """DPO, where each validation is worse than the one before."""
    rows = pair_rows()[:8]
    return dpo_trainer(tiny, checkpoints, rows, turned(rows), load_best_model_at_end=True, **changes)


def ranking(tiny, checkpoints, changes):
    """A reward model of prompts' answers at once."""
    rows = [group(i, ANSWERS[::-1] if i in (0, 1, 4) else ANSWERS) for i in range(8)]
    write_jsonl("groups.jsonl", rows)
    write_jsonl("pairs.jsonl", [pair(i) for i in range(8)])
    return build(tiny.policy, checkpoints, loss_type="ranking", **changes)


BUILD = {
    "sft": lambda tiny, checkpoints, changes: sft_trainer(tiny, checkpoints, sft_rows()[:8], **changes),
    "reward": lambda tiny, checkpoints, changes: reward_trainer(tiny, checkpoints, pair_rows()[:8], **changes),
    "ranking": ranking,
    "overfitting": overfitting,
    "kto": lambda tiny, checkpoints, changes: kto_trainer(tiny, checkpoints, **changes),
    "dpo": lambda tiny, checkpoints, changes: dpo_trainer(tiny, checkpoints, pair_rows()[:8], **changes),
}


def in_this_process(what, changes, policy, reward, out):
    """Train or score, and write what this process saw to a file of its rank."""
    hardware.use(IN_FP32)
    rank = os.environ["RANK"]
    work = Path(f"of-{rank}")  # the fixtures' files are written by each process
    work.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(name, work)
    os.chdir(work)
    if what == "rows":
        saw = named_rewards(int(changes), Path(reward))
    elif what == "draws":
        saw = draws(Tiny(Path(policy), Path(reward)), json.loads(changes))
    else:
        checkpoints = CheckpointDir("ppo")
        trainer = BUILD[what](Tiny(Path(policy), Path(reward)), checkpoints, json.loads(changes))
        training.run(trainer, checkpoints)
        saw = seen(trainer)
    torch.save(saw, f"{out}/{rank}.pt")


class Draws(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        self.drawn = torch.rand(8)


def draws(tiny, changes):
    """What a process draws in the first step of a training, as dropout would."""
    checkpoints = CheckpointDir("ppo")
    trainer, callback = sft_trainer(tiny, checkpoints, sft_rows()[:8], max_steps=1, **changes), Draws()
    trainer.add_callback(callback)
    training.run(trainer, checkpoints)
    return callback.drawn


def seen(trainer):
    state = trainer.accelerator.unwrap_model(trainer.model).state_dict()
    is_sharded = all(isinstance(weight, DTensor) for weight in state.values())
    state = {name: whole(weight) for name, weight in state.items()}
    return {
        "train": rows(trainer),
        "eval": rows(trainer, "eval_loss"),
        "weights": state,
        "is_sharded": is_sharded,
    }


def named_rewards(count, reward):
    """Texts that name their row, with what a reward model and a function of texts give in these processes."""
    texts = [f"row {i} {'cat ' * (i % 5)}" for i in range(count)]
    model = RewardModel.load(reward)
    prompts = [[{"role": "user", "content": TEXTS[i % len(TEXTS)]}] for i in range(count)]
    return {
        "names": processes.shared_out(texts, lambda part: [int(text.split()[1]) for text in part]),
        "rewards": shared(model)(prompts, texts),
        "alone": model(prompts, texts),
    }


if __name__ == "__main__":
    in_this_process(*sys.argv[1:])
