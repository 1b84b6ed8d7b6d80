"""What each process of a launched PPO run does: run by launched.py."""

import dataclasses
import json
import os
import sys
from functools import partial

import torch
from ppo_steps import Gradients
from ppo_trainers import EVAL_ROWS, PTX_ROWS, TRAIN_ROWS, ppo_params
from tiny_models import IN_FP32
from trained import rows, whole
from transformers import TrainerCallback

from rlhf_lib.models import hardware
from rlhf_lib.models import loading as models
from rlhf_lib.ppo import build as ppo
from rlhf_lib.training import trainer as training
from rlhf_lib.training import weights
from rlhf_lib.training.checkpoint import CheckpointDir


class Killed(Exception):
    pass


class KillAfter(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


def held(trainer):
    """How many numbers this process holds of all weights, and how many there are."""
    with trainer.reference() as reference:
        pass  # within, it is put together
    weights = {id(p): p for model in (reference, trainer.model) for p in model.parameters()}.values()
    return sum(getattr(p, "_local_tensor", p).numel() for p in weights), sum(p.numel() for p in weights)


def in_this_process(changes, policy, reward, out):
    """Train, and write what this process saw to a file of its rank."""
    changes = json.loads(changes)
    hardware.use(dataclasses.replace(IN_FP32, precision=changes.pop("precision", "fp32")))
    kill_at = changes.pop("kill_at", None)
    params, checkpoints = ppo_params(**changes), CheckpointDir("ppo", any_processes=True)
    trainer = ppo.build(params, policy, reward, TRAIN_ROWS, EVAL_ROWS, PTX_ROWS, checkpoints)
    seen = Gradients()
    trainer.add_callback(seen)
    if kill_at is not None:
        trainer.add_callback(KillAfter(kill_at))
    try:
        training.run(trainer, checkpoints)
    except Killed:
        os._exit(0)
    saw = {
        "gradients": seen.steps,
        "train": rows(trainer),
        "eval": rows(trainer, "eval_reward"),
        "weights": {name: whole(weight) for name, weight in trainer.model.state_dict().items()},
        "held": held(trainer),
        "completions": trainer.ppo_state.completions,
        "processes": trainer.accelerator.num_processes,
    }
    torch.save(saw, f"{out}/{trainer.accelerator.process_index}.pt")
    load = partial(models.load_policy, policy)
    weights.export(trainer, "ppo", params, "CAUSAL_LM", f"{out}/model", load, part="policy")


if __name__ == "__main__":
    in_this_process(*sys.argv[1:])
