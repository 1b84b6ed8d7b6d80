"""Sealing checkpoints as a trainer writes them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import Trainer

from rlhf_lib.common.launching import is_main
from rlhf_lib.training import best, unlogged
from rlhf_lib.training.params import BestParams
from rlhf_lib.training.weights import Counts
from rlhf_lib.training.whole import best as named_best
from rlhf_lib.training.whole import delete, seal


class SealedCheckpoints(Trainer):
    """A trainer that seals each checkpoint once all is in it, and then deletes those that are not to be kept; a base of
    others. The best is known by its name, wherever the project is.

    save_total_limit: how many are kept, the newest and the best among them; None: all. summed: attributes of one's own
    that are added up between two logs, numbers.
    """

    save_total_limit: int | None = 1
    summed: tuple[str, ...] = ()
    counts: Counts  # of what was trained, before it is merged

    def keep_best(self, params: BestParams) -> None:
        """Look for the best model as the params say; where they need validation rows, there must be some.

        To be called once the trainer has all callbacks that decide when to evaluate and to save.
        """
        args, patience = self.args, params.early_stopping_patience
        self.save_total_limit = params.save_total_limit
        if not params.needs_best:
            return  # Trainer would keep the best checkpoint in place of an older one wherever it knows which is best
        # not handed over with the other arguments: those are refused where save_steps is no multiple of eval_steps
        args.load_best_model_at_end = params.load_best_model_at_end
        args.metric_for_best_model = params.metric_for_best_model
        args.greater_is_better = not params.metric_for_best_model.endswith("loss")
        if patience is not None:
            args.restore_callback_states_from_checkpoint = True  # how long it has waited
            self.add_callback(best.EarlyStopping(patience))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # every process writes the state of its random numbers
        if not is_main():
            return
        newest = Path(self.args.output_dir or "") / f"checkpoint-{self.state.global_step}"
        seal(newest)
        kept = {newest.name, Path(self.state.best_model_checkpoint or newest).name}
        steps = {_step(path.name): path for path in newest.parent.glob("checkpoint-*")}
        for step in to_delete(steps, {_step(name) for name in kept}, self.state.global_step, self.save_total_limit):
            delete(steps[step])

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        unlogged.save(self, output_dir)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        best.check_number(self, metrics)
        is_best = super()._determine_best_metric(metrics, trial)
        self.control.should_save = best.to_save(self, is_best)
        return is_best

    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, epochs: int, resume_from_checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        begun = super()._init_training_state(max_steps, steps_per_epoch, epochs, resume_from_checkpoint, trial)
        if resume_from_checkpoint is not None and (found := named_best(Path(resume_from_checkpoint))) is not None:
            self.state.best_model_checkpoint = str(found)
        # a run that was killed after its last step, or after its patience ran out, has no epoch left; Trainer would
        # take one more step of an epoch that the last one had not filled
        return (epochs, 0) if self.state.global_step >= max_steps or best.is_over(self) else begun

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # a weight that is tied to another is written once
        tied = tuple(getattr(self.model, "all_tied_weights_keys", None) or ())
        missing = [name for name in load_result.missing_keys if not (tied and name.endswith(tied))]
        super()._issue_warnings_after_load(type(load_result)(missing, load_result.unexpected_keys))


def to_delete(steps: Iterable[int], kept: set[int], newest: int, limit: int | None) -> list[int]:
    """The steps of checkpoints that go: the oldest, beyond `limit` of them in all; never those of `kept`.

    Those of later steps than the newest were not whole when the run resumed before them.
    """
    others = sorted(step for step in steps if step < newest and step not in kept)
    room = len(others) if limit is None else max(0, limit - len(kept))
    return [*others[: len(others) - room], *(step for step in steps if step > newest)]


def _step(name: str) -> int:
    return int(name.removeprefix("checkpoint-"))
