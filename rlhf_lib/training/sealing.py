"""Sealing checkpoints as a trainer writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Trainer

from rlhf_lib.models.processes import is_main
from rlhf_lib.training.whole import best, delete, seal


class SealedCheckpoints(Trainer):
    """A trainer that seals each checkpoint once all is in it, and then deletes the others, but for the best; a base of
    others. The best is known by its name, wherever the project is.
    """

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every process writes the state of its random numbers
        if not is_main():
            return
        newest = Path(self.args.output_dir or "") / f"checkpoint-{self.state.global_step}"
        seal(newest)
        kept = {newest.name, Path(self.state.best_model_checkpoint or newest).name}
        for path in newest.parent.glob("checkpoint-*"):
            if path.name not in kept:
                delete(path)

    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, epochs: int, resume_from_checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        begun = super()._init_training_state(max_steps, steps_per_epoch, epochs, resume_from_checkpoint, trial)
        if resume_from_checkpoint is not None and (found := best(Path(resume_from_checkpoint))) is not None:
            self.state.best_model_checkpoint = str(found)
        return begun
