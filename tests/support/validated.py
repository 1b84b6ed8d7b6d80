"""Validations of numbers of rows that processes cannot share out evenly: run by launched.py, or in one process."""

import os
import sys
from pathlib import Path

import torch
from kto_trainers import kto_params, thumb_rows
from reward_trainers import ANSWERS, group
from reward_trainers import params as params_of
from tiny_models import IN_FP32, Tiny
from trl_trainers import CHOSEN, REJECTED, TRAINER, dataset, dpo_params, pair_rows, referenced, sft_rows

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.kto import trainer as kto
from rlhf_lib.kto.data import COLUMNS
from rlhf_lib.models import hardware
from rlhf_lib.reward import trainer as reward
from rlhf_lib.reward.params import JudgeParams
from rlhf_lib.sft import trainer as sft
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training.checkpoint import CheckpointDir

KINDS, COUNTS = ("sft", "reward", "ranking", "dpo", "kto"), (1, 5)
# after a step that leaves the weights as they were
SHARED = {"per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "learning_rate": 0.0, "max_steps": 1}
SHARED |= {"eval_steps": 1, "save_steps": 9}
OF_THE_RUN = ("time", "_per_second", "num_tokens", "epoch")


def build(kind, tiny, checkpoints, count):
    """A trainer that validates on `count` rows, two to a batch, grouped by their lengths where the trainer can."""
    changes = {**SHARED, "train_sampling_strategy": "random" if kind == "dpo" else "group_by_length"}
    policy = str(tiny.policy)
    if kind == "sft":
        params = SFTParams(**{**TRAINER, "max_length": 64, **changes})
        parts = (dataset(rows, sft.COLUMNS) for rows in (sft_rows(), sft_rows()[:count]))
        return sft.build(params, policy, *parts, checkpoints)
    if kind == "reward":
        write_jsonl("train.jsonl", pair_rows())
        write_jsonl("validation.jsonl", pair_rows()[:count])
        base = {"model_name_or_path": policy, "max_length": 64, "center_rewards_coefficient": None}
        params = JudgeParams(**{**TRAINER, **base, **changes})
        return reward.build("reward", params, reward.Splits("train.jsonl", "validation.jsonl"), None, checkpoints)
    if kind == "ranking":
        write_jsonl("groups.jsonl", [group(i) for i in range(9)])
        write_jsonl("held_out_groups.jsonl", [group(i, ANSWERS[1:] + ANSWERS[:1]) for i in range(count)])
        files = reward.Splits("none", "none", "groups.jsonl", "held_out_groups.jsonl")
        return reward.build("reward", params_of(policy, loss_type="ranking", **changes), files, None, checkpoints)
    if kind == "dpo":
        parts = (referenced(tiny, rows, ld_alpha=0.5) for rows in (pair_rows(), pair_rows()[:count]))
        return dpo.build(dpo_params(**changes), 64, policy, *parts, checkpoints)
    parts = (dataset(rows, COLUMNS) for rows in (thumb_rows(), thumb_rows()[:count]))
    return kto.build(kto_params(**changes), policy, *parts, checkpoints)


def validated(tiny, checkpoints):
    """What each kind of trainer measures of each number of rows, but for times."""
    found = {}
    for kind in KINDS:
        for count in COUNTS:
            trainer = build(kind, tiny, checkpoints, count)
            trainer.train()
            (measured,) = (entry for entry in trainer.state.log_history if "eval_loss" in entry)
            found[kind, count] = {key: measured[key] for key in measured if not key.endswith(OF_THE_RUN)}
    return found


if __name__ == "__main__":
    assert len(CHOSEN) == len(REJECTED) > max(COUNTS)
    hardware.use(IN_FP32)
    policy, scorer, out = map(Path, sys.argv[1:])
    work = Path(f"of-{os.environ['RANK']}")
    work.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (work / name).write_text(Path(name).read_text())
    os.chdir(work)
    torch.save(validated(Tiny(policy, scorer), CheckpointDir("ppo")), out / f"{os.environ['RANK']}.pt")
