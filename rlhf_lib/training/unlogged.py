"""What a trainer has added up since its last log: a checkpoint between two logs keeps it, so that a resumed run logs
what an undisturbed one does. Trainer itself would begin its means anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments


def save(trainer: Trainer, directory: str) -> None:
    """Write this process's sums into a checkpoint's directory."""
    kept = {
        "loss": trainer._tr_loss.item(),
        "last_logged": trainer._globalstep_last_logged,
        "metrics": {name: list(map(float, values)) for name, values in _metrics(trainer).items()},
        "sums": {name: getattr(trainer, name) for name in getattr(trainer, "summed", ())},
    }
    _file(trainer, directory).write_text(json.dumps(kept))


def _file(trainer: Trainer, directory: str) -> Path:
    return Path(directory) / f"unlogged_{trainer.args.process_index}.json"


def _metrics(trainer: Trainer) -> dict[str, list[float]]:
    """What TRL's trainers log of their training batches."""
    by_mode: dict[str, Any] = getattr(trainer, "_metrics", {})
    return by_mode["train"] if by_mode else {}


class Resume(TrainerCallback):
    """Takes up what `save` wrote into the checkpoint that a run resumes from."""

    def __init__(self, trainer: Trainer, checkpoint: str | None) -> None:
        self.trainer, self.checkpoint = trainer, checkpoint

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        trainer = self.trainer
        # PPO may go on in more processes; it has nothing to take up
        if self.checkpoint is None or not (file := _file(trainer, self.checkpoint)).is_file():
            return
        kept = json.loads(file.read_text())
        trainer._tr_loss = torch.tensor(kept["loss"], device=args.device)
        trainer._globalstep_last_logged = kept["last_logged"]
        _metrics(trainer).update(kept["metrics"])
        for name, value in kept["sums"].items():
            setattr(trainer, name, value)
