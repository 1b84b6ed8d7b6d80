"""Our side of the benchmark of SFT, reward model and DPO: `python -m benchmarks.trainers.ours`, started by
benchmarks/trainers/__main__.py."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from benchmarks.ppo import worker
from benchmarks.trainers.worker import BlockTurns, TrainerTask, describe, trainer_task, watch
from rlhf_lib.common import environment
from rlhf_lib.common.schema import PARAMS_FILE, check
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.dpo.params import DPOParams
from rlhf_lib.models.params import AUTO
from rlhf_lib.reward.params import RewardParams
from rlhf_lib.sft.params import SFTParams

PARAMS = Path(__file__).resolve().parents[2] / PARAMS_FILE
SECTIONS: dict[str, Any] = {"sft": SFTParams, "reward": RewardParams, "dpo": DPOParams}
REFERENCE = "reference.jsonl"


def params(task: TrainerTask) -> Any:
    """The section of params.yaml of the stage, with the case's values in it."""
    from benchmarks.trainers import preferences

    section = {**load_yaml(PARAMS)[task.task], **task.case.ours(task.task, task.blocks)}
    if task.task == "reward":
        section["model_name_or_path"] = str((task.folder / preferences.MODEL).resolve())
    return check(SECTIONS[task.task], section, task.task, PARAMS_FILE)


def build(task: TrainerTask) -> Any:
    """The trainer as the stage builds it, on the benchmark's model and rows; DPO's reference must be there."""
    from benchmarks.trainers import preferences
    from rlhf_lib.dpo import reference
    from rlhf_lib.dpo import trainer as dpo
    from rlhf_lib.reward import trainer as reward
    from rlhf_lib.sft import trainer as sft
    from rlhf_lib.training import trainer as training

    model, path = str(task.folder / preferences.MODEL), str(task.folder / preferences.ROWS)
    nowhere = worker.Nowhere(task.folder)
    if task.task == "sft":
        rows = training.dataset(path, sft.COLUMNS)
        return sft.build(params(task), model, rows, rows.select([0]), nowhere)
    if task.task == "reward":
        return reward.build("reward", params(task), reward.Splits(path, path), None, nowhere)
    rows = dpo.with_reference(training.dataset(path, reference.COLUMNS), task.folder / REFERENCE)
    return dpo.build(params(task), task.case.max_length, model, rows, rows.select([0]), nowhere)


def measure_reference(task: TrainerTask) -> dict[str, float]:
    """Do the work of stage `reference`, and say what it took in CPU seconds.

    What one pair takes, once everything is imported, is the loading of model and trainer: a stage pays that once, and
    a block's few pairs would make it look large.
    """
    from benchmarks.trainers import preferences
    from rlhf_lib.common.rows import read_jsonl, write_jsonl
    from rlhf_lib.dpo.reference import reference_logprobs
    from rlhf_lib.models.loading import load_policy, load_tokenizer

    rows, model = list(read_jsonl(task.folder / preferences.ROWS)), str(task.folder / preferences.MODEL)

    def seconds(count: int) -> float:
        start = time.process_time()
        policy, tokenizer = load_policy(model), load_tokenizer(model)
        logprobs = reference_logprobs(policy, tokenizer, rows[:count], task.case.max_length, batch_size=64)
        took = time.process_time() - start
        write_jsonl(task.folder / REFERENCE, logprobs)
        return took

    seconds(1)
    setup = seconds(1)
    return {"reference_setup_seconds": setup, "reference_seconds": max(seconds(len(rows)) - setup, 0.0)}


def main() -> None:
    task = trainer_task()
    turns = BlockTurns(task.blocks)
    environment.prepare()
    import torch

    from benchmarks.arithmetic import Arithmetic
    from rlhf_lib.models import hardware
    from rlhf_lib.training import trainer as training

    torch.set_num_threads(worker.THREADS)
    case = task.case
    chosen = dataclasses.replace(
        AUTO, device="cpu", precision=case.precision, gradient_checkpointing=case.checkpointing
    )
    hardware.use(chosen)
    measured = measure_reference(task) if task.task == "dpo" else {}
    trainer = build(task)
    watch(trainer, turns, task.case.steps)
    turns.arithmetic = Arithmetic(hardware.precision())
    turns.say({**describe(trainer, task.case.ours(task.task, task.blocks)), **measured})
    worker.train(lambda: training.run(trainer, worker.Nowhere(task.folder)))


if __name__ == "__main__":
    main()
