"""The curves of a stage's training, in metrics/<stage>, which grow while it trains.

DVC, editors and `make watch` read them at any moment: each file is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf_lib.common import paths
from rlhf_lib.common.files import write_curve
from rlhf_lib.training.status import Pace, Status

Log = list[dict[str, float]]

# The columns of eval.tsv that other files read, by stage.
_EVALUATED = {
    "sft": ("eval_loss",),
    "reward": ("eval_loss", "eval_accuracy"),
    "judge": ("eval_loss", "eval_accuracy"),
    "dpo": ("eval_loss", "eval_rewards/accuracies"),
    "ppo": ("eval_reward", "eval_kl"),
    "rft": ("eval_loss",),
    "rft_random": ("eval_loss",),
    "kto": ("eval_loss", "eval_rewards/margins"),
}

# Logged values that differ from run to run, or after a resume (TRL counts tokens from the restart): kept out of what
# DVC hashes.
_UNTRACKED = ("epoch", "total_flos", "train_runtime", "eval_runtime", "num_tokens", "eval_num_tokens")


def write(stage: str, log: Log) -> None:
    """metrics/<stage>/train.tsv and eval.tsv: the log's training and evaluation rows by optimizer step.

    Without evaluations there is the header that the plots in dvc.yaml look for.
    """
    train = [entry for entry in log if "loss" in entry]
    evaluations = [entry for entry in log if any(key.startswith("eval_") for key in entry)]
    write_curve(paths.curve(stage, "train"), [_tracked(entry) for entry in train])
    header = () if evaluations else ("step", *_EVALUATED.get(stage, ()))
    write_curve(paths.curve(stage, "eval"), [_tracked(entry) for entry in evaluations], header)


def _write_what_there_is(stage: str, log: Log) -> None:
    """Write the curves of a training that is not over; not before its first row, which names the columns."""
    if any("loss" in entry for entry in log):
        write(stage, log)


def _tracked(entry: dict[str, float]) -> dict[str, float]:
    kept = {k: v for k, v in entry.items() if k not in _UNTRACKED and not k.endswith("_per_second")}
    # Sorted, because a checkpoint's log comes back with its keys sorted: a resumed run writes the same bytes.
    return {"step": kept.pop("step"), **dict(sorted(kept.items()))}


@contextmanager
def growing(trainer: Trainer, stage: str) -> Iterator[None]:
    """A context that trains: the curves of the stage grow meanwhile, and are up to date at its end, whatever ends it.

    A training that fails leaves them, to see why; no other out is there, so DVC takes them for nothing. stage: "" where
    it is of none, which writes nothing.
    """
    if not stage or not trainer.is_world_process_zero():
        yield
        return
    status = Status(trainer, stage)
    trainer.add_callback(_Grow(stage, status))
    try:
        yield
    except BaseException:
        with suppress(OSError):
            _write_what_there_is(stage, trainer.state.log_history)
        raise
    write(stage, trainer.state.log_history)
    with suppress(OSError):
        status.write(trainer.args, trainer.state, "trained")


class _Grow(TrainerCallback):
    """Writes the curves, and how far the training is, from time to time."""

    def __init__(self, stage: str, status: Status) -> None:
        self.stage, self.status, self.pace = stage, status, Pace()
        self.written = 0  # entries of the log

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.status.begin(args, state)
        self._look(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.status.look(args, state, "training")
        self._look(state)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.status.look(args, state, "validating")
        self._look(state)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        self.status.count(logs or {})
        self.status.look(args, state, "training")
        self._look(state)

    def _look(self, state: TrainerState) -> None:
        if len(state.log_history) != self.written and self.pace.is_due():
            with self.pace.writing():
                _write_what_there_is(self.stage, state.log_history)
            self.written = len(state.log_history)
