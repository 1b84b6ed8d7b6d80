"""A training that diverges is stopped in one line, before it writes a model or a checkpoint to resume from.

Nothing is asked of the device between two logs: the loss is looked at where Trainer has fetched it, the weights where
they are about to be evaluated or saved.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from transformers import (
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rlhf_lib.common.launching import is_main
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import hardware
from rlhf_lib.models.loading import nonfinite
from rlhf_lib.training import best
from rlhf_lib.training.checkpoint import CheckpointDir

WATCHED = ("loss", "rewards/margins", "grad_norm")  # of what is logged, with eval_ before it or not
# Times the first loss, or times 1 where that was less, above which a loss has left all bounds. PPO's holds squares of
# rewards in a user's own units, which may well grow.
GROWTH, GROWTH_OF_PPO = 1e3, 1e6
UNCHANGED = 1e-12  # what weights of 0, as an adapter has, may move by where all others are as they were


class Diverged(ParamsError):
    """A training whose loss or weights are not finite, or whose loss left all bounds."""

    def __init__(self, stage: str, what: str) -> None:
        precision = hardware.precision()
        advice = f"lower {stage}.learning_rate, or {stage}.max_grad_norm"
        if stage == "dpo":
            advice += ", look at dpo.beta, dpo.loss_type and dpo.label_smoothing"
        elif stage == "kto":
            advice += ", look at kto.beta and the weights"
        if precision != "fp32":
            advice += f", or set compute.precision to fp32 (it is {precision})"
        super().__init__(f"{stage}: {what}: the training diverged, and no model was written; {advice} in params.yaml")


class Divergence(TrainerCallback):
    """Raises `Diverged` for a trainer of a stage; to be added after whatever decides when to log and to save.

    Where the training leaves all weights as they were, it says so in a line.
    """

    def __init__(self, stage: str, trainer: Trainer) -> None:
        self.stage, self.trainer, self.first = stage, trainer, math.nan
        self.at_first: tuple[int, list[float]] = (0, [])
        self.growth = GROWTH_OF_PPO if stage == "ppo" else GROWTH
        # shards are not the weights: there the losses and the export must tell
        self.is_sharded = trainer.is_fsdp_enabled

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        # a resumed run goes on with the bound of the killed one
        self.first = next((entry["loss"] for entry in state.log_history if "loss" in entry), math.nan)
        self.at_first = state.global_step, [] if self.is_sharded else _sums(model)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        step, sums = self.at_first
        loaded = best.step(self.trainer)  # these weights are of that step, which may be the one that a run resumed from
        last = state.global_step if loaded is None else loaded
        if last <= step or args.learning_rate == 0 or not sums or not is_main():
            return
        if all(abs(now - then) < UNCHANGED for now, then in zip(_sums(model), sums, strict=True)):
            keys = "learning_rate, warmup_steps, adam_epsilon, max_grad_norm" + (
                ", beta" if self.stage in ("dpo", "kto") else ""
            )
            print(f"\n{self.stage}: no weight changed in {last - step} steps; look at {keys}", flush=True)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        found = {name: value for name, value in (logs or {}).items() if name.removeprefix("eval_") in WATCHED}
        if hardware.precision() == "fp16":
            found.pop("grad_norm", None)  # its scaler tries until gradients overflow, and leaves those steps out
        for name, value in found.items():
            if not math.isfinite(value):
                raise Diverged(self.stage, f"{name} is {value} at step {state.global_step}")
        losses = {name: value for name, value in found.items() if name.endswith("loss")}
        for name, loss in losses.items():
            if math.isnan(self.first):
                self.first = loss
            if abs(loss) > self.growth * max(1.0, abs(self.first)):
                raise Diverged(
                    self.stage, f"{name} is {loss:.3g} at step {state.global_step}, and was {self.first:.3g} at first"
                )

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        is_due = control.should_save or control.should_evaluate or state.global_step == state.max_steps
        if is_due and not self.is_sharded and (name := nonfinite(model)):
            raise Diverged(self.stage, f"{name} holds NaN or infinity after step {state.global_step}")


def _sums(model: Any) -> list[float]:
    """The sum of each weight that is trained, which hardly any change of its numbers leaves as it is."""
    # on the CPU: Apple's GPUs have no float64, and a copy in it of a large matrix may not fit elsewhere
    trained = (weight.detach().cpu() for weight in model.parameters() if weight.requires_grad)
    return [float(weight.sum(dtype=torch.float64)) for weight in trained]


def _end_bars(trainer: Trainer) -> None:
    for callback in [*trainer.callback_handler.callbacks]:
        if isinstance(callback, ProgressCallback) and callback.training_bar is None:
            trainer.remove_callback(callback)  # whose bar, which it takes to be there, has not begun
    trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)


@contextmanager
def leaving_no_checkpoint(trainer: Trainer, checkpoints: CheckpointDir) -> Iterator[None]:
    """A context that trains: where it diverges, its checkpoints go, from which it would diverge again."""
    try:
        yield
    except ParamsError as error:
        _end_bars(trainer)
        print(file=sys.stderr)  # the error would else stand behind a bar, which may be that of another process
        if isinstance(error, Diverged) and is_main():
            checkpoints.drop()
        raise
