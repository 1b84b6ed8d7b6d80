"""The best checkpoint: whose weights a stage writes, and when a training waits no longer for a better one.

Trainer looks for it at each evaluation; transformers asks for evaluations and checkpoints at the same steps then. Here
the best model so far is saved as soon as it is known to be the best, whatever `save_steps` is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import (
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rlhf_lib.common.policies import section
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.training.curves import Log
from rlhf_lib.training.params import BestParams


def check(name: str, params: BestParams, file: str) -> None:
    """A `ParamsError` where the params of section `name` need validation rows; to be called where `file` gives none."""
    if not params.needs_best:
        return
    key, off = (
        ("load_best_model_at_end", "false") if params.load_best_model_at_end else ("early_stopping_patience", "null")
    )
    raise ParamsError(
        f"params.yaml: {name}.{key}: no model is known to be better than another, for {file} has no rows to "
        f"validate on; set it to {off}, or load more"
    )


class EarlyStopping(EarlyStoppingCallback):
    """transformers' callback, which also leaves a last log and a last checkpoint: a resumed run has nothing to do."""

    @property
    def is_over(self) -> bool:
        """Whether the patience has run out."""
        return self.early_stopping_patience_counter >= self.early_stopping_patience

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # an evaluation at the end of an epoch may be the last one, and comes after this
        may_end = self.is_over or args.eval_strategy == "epoch"
        control.should_log |= may_end and not any("loss" in entry for entry in state.log_history)
        control.should_save |= self.is_over


class SaveAfterEvaluation(TrainerCallback):
    """Puts off a checkpoint that is due at the end of an epoch until the epoch's evaluation, where there is one: a run
    that resumes from it would miss that. To be added after whatever decides when to save."""

    def __init__(self) -> None:
        self.is_due = False

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        is_last = state.global_step == state.max_steps or float(state.epoch).is_integer()
        self.is_due = args.eval_strategy == "epoch" and is_last and control.should_save
        control.should_save &= not self.is_due

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        control.should_save |= self.is_due
        self.is_due = False


def is_over(trainer: Trainer) -> bool:
    """Whether a trainer's patience has run out."""
    return any(isinstance(one, EarlyStopping) and one.is_over for one in trainer.callback_handler.callbacks)


def stopped_early(trainer: Trainer) -> bool:
    """Whether the patience ran out before the last step."""
    return is_over(trainer) and trainer.state.global_step < trainer.state.max_steps


def to_save(trainer: Trainer, is_best: bool) -> bool:
    """Whether a checkpoint is due after an evaluation that found the best model so far, or did not."""
    if is_over(trainer) and trainer.args.eval_strategy != "epoch":
        return False  # with the last log, at the end of the epoch, which is now
    is_wanted = is_best and trainer.args.load_best_model_at_end
    return trainer.control.should_save or is_wanted or is_over(trainer)


def check_number(trainer: Trainer, metrics: dict[str, float]) -> None:
    """A `ParamsError` where the metric by which the best model is told, if any, is not there, or not a number."""
    if (name := trainer.args.metric_for_best_model) is None:
        return
    value = metrics.get(name if name.startswith("eval_") else f"eval_{name}")
    if value is None or math.isnan(value):
        stage = Path(str(trainer.args.output_dir)).parent.name
        raise ParamsError(
            f"params.yaml: {section(stage)}.metric_for_best_model: {name} is not a number, as of validation rows "
            "without two answers to compare, or all good, or all bad; set it to eval_loss"
        )


def step(trainer: Trainer) -> int | None:
    """The step whose weights were loaded at the end as the best; None where the last ones are kept."""
    state = trainer.state
    is_loaded = trainer.args.load_best_model_at_end and state.best_model_checkpoint is not None
    return state.best_global_step if is_loaded else None


def until(trainer: Trainer, log: Log) -> Log:
    """The log up to the step whose weights the trainer holds: its last evaluation is of the model that is written."""
    last = step(trainer)
    return log if last is None else [entry for entry in log if entry["step"] <= last]


def summary(trainer: Trainer, log: Log, count: str = "epoch") -> dict[str, float | int | bool | None]:
    """Which step was the best, and its `count` (a key of the log) and metric, null where the last model is kept;
    whether early stopping ended the training."""
    best = step(trainer)
    return {
        "best_step": best,
        f"best_{count}": next((entry[count] for entry in log if entry["step"] == best and count in entry), None),
        "best_metric": None if best is None else trainer.state.best_metric,
        "stopped_early": stopped_early(trainer),
    }


def told(trainer: Trainer) -> Iterator[str]:
    """What to say of a training that has ended: why before its time, and which model was kept."""
    state, metric = trainer.state, trainer.args.metric_for_best_model
    if stopped_early(trainer):
        yield f"stopped at step {state.global_step} of {state.max_steps}: {metric} was best at {state.best_global_step}"
    if (found := step(trainer)) is not None:
        yield f"the model of step {found} is kept, with the best {metric}: {state.best_metric:.4g}"
