"""TRL's side of the benchmark of SFT, reward model and DPO: `python -m benchmarks.trainers.peer`, started by
benchmarks/trainers/__main__.py."""

from __future__ import annotations

from typing import Any

from benchmarks.ppo import worker
from benchmarks.trainers.worker import BlockTurns, TrainerTask, describe, trainer_task, watch
from rlhf_lib.common import environment

COLUMNS = {
    "sft": ("prompt", "completion"),
    "reward": ("prompt", "chosen", "rejected"),
    "dpo": ("prompt", "chosen", "rejected"),
}


def settings(task: TrainerTask) -> dict[str, Any]:
    """The arguments of TRL's config; all else is its default."""
    return {
        **task.case.work(task.task, task.blocks),
        "report_to": "none",
        "save_strategy": "no",
        "eval_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        **task.case.peer,
    }


def build(task: TrainerTask) -> Any:
    """TRL's trainer on the benchmark's model and rows. It loads the model itself, and DPO's reference too."""
    import trl
    from datasets import Dataset
    from transformers import AutoTokenizer

    from benchmarks.trainers import preferences
    from rlhf_lib.common.rows import read_jsonl

    names = {"sft": "SFT", "reward": "Reward", "dpo": "DPO"}
    trainer, config = (getattr(trl, names[task.task] + suffix) for suffix in ("Trainer", "Config"))
    rows = read_jsonl(task.folder / preferences.ROWS)
    model = str(task.folder / preferences.MODEL)
    return trainer(
        model=model,
        args=config(output_dir=str(task.folder / "peer"), **settings(task)),
        train_dataset=Dataset.from_list([{key: row[key] for key in COLUMNS[task.task]} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(model),
    )


def take_our_order(trainer: Any, task: TrainerTask) -> None:
    """Let TRL's trainer, which draws a random order of the rows too, draw ours: then step by step the losses are of
    the same rows."""
    from rlhf_lib.training.trainer import EpochOrder

    order = EpochOrder([0] * task.case.rows, task.case.batch, grouped=False, seed=task.case.seed)
    trainer._get_train_sampler = lambda dataset=None: order


def main() -> None:
    task = trainer_task()
    turns = BlockTurns(task.blocks)
    environment.prepare()
    import torch

    torch.set_num_threads(worker.THREADS)
    trainer = build(task)
    take_our_order(trainer, task)
    watch(trainer, turns, task.case.steps)
    turns.say(describe(trainer, settings(task)))
    worker.train(trainer.train)


if __name__ == "__main__":
    main()
