"""What the two sides' processes of the benchmark of SFT, reward model and DPO share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ppo import worker
from benchmarks.trainers.cases import CASES, TASKS, TrainerCase


@dataclass(frozen=True)
class TrainerTask:
    task: str
    case: TrainerCase
    blocks: int  # the warm-up included
    folder: Path


def name_of(task: str, case: str) -> str:
    """A worker's argument for this task and case."""
    return f"{task}:{case}"


def trainer_task() -> TrainerTask:
    """What the command line asks a worker to do."""
    asked = worker.arguments([name_of(task, case) for task in TASKS for case in CASES])
    task, _, name = asked.case.partition(":")
    case = CASES[name]
    return TrainerTask(task, case.quick() if asked.quick else case, asked.updates, asked.models)


class BlockTurns(worker.Turns):
    """Turns of a block each, with the losses that were logged in it."""

    def __init__(self, blocks: int) -> None:
        super().__init__(blocks)
        self.losses: list[float] = []

    def begin(self) -> None:
        self.losses.clear()
        super().begin()

    def measured(self) -> dict[str, Any]:
        return {**super().measured(), "losses": list(self.losses)}


def watch(trainer: Any, turns: BlockTurns, steps: int) -> None:
    """Take turns at the ends of passes over the rows; a RuntimeError where a pass is not `steps` steps."""
    from transformers import TrainerCallback

    class TakeTurns(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            worker.reset_peak()
            turns.begin()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
            turns.losses.append(logs["loss"])

        def on_epoch_end(self, args: Any, state: Any, *rest: Any, **kwargs: Any) -> None:
            if state.global_step != steps * (turns.done + 1):
                raise RuntimeError(f"{state.global_step} steps after {turns.done + 1} passes of {steps} steps")
            turns.end()

    trainer.add_callback(TakeTurns())


def describe(trainer: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """A side's settings, precision among them, and versions."""
    import accelerate
    import torch
    import transformers
    import trl

    arguments, config = trainer.args, trainer.model.config
    actual = {
        key: getattr(arguments, key)
        for key in ("bf16", "fp16", "gradient_checkpointing", "train_sampling_strategy", "optim", "use_cpu")
    }
    return {
        "settings": {
            **settings,
            **actual,
            "attn_implementation": config._attn_implementation,
            "weights": str(next(trainer.model.parameters()).dtype).removeprefix("torch."),
        },
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, accelerate, trl)},
    }
