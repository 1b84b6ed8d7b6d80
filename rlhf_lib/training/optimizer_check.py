"""Whether a section's optimizer and schedule can be made, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, get_scheduler
from transformers.trainer_utils import SchedulerType
from transformers.training_args import OptimizerNames

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.training.weights import Model

_STEPS = 1000


def check(section: str, args: TrainingArguments, model: Model) -> None:
    """A `ParamsError` for an optimizer whose package is not installed, or for options that are refused.

    Nothing of it is kept: the trainer makes its own.
    """
    _tell(f"{section}.optim: {OptimizerNames(args.optim).value}", lambda: _optimizer(args, model))
    schedule = SchedulerType(args.lr_scheduler_type).value
    _tell(f"{section}.lr_scheduler_kwargs: {schedule}", lambda: _schedule(args))


def _optimizer(args: TrainingArguments, model: Model) -> None:
    kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
    if kind.__module__.startswith("torch.optim"):
        kind([torch.zeros(1)], **options)


def _schedule(args: TrainingArguments) -> None:
    """Make the schedule, and ask it for rates, which is when it refuses some of its options."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate)
    schedule: Any = get_scheduler(args.lr_scheduler_type, optimizer, 1, _STEPS, dict(args.lr_scheduler_kwargs or {}))
    for rate in getattr(schedule, "lr_lambdas", ()):
        _ = [rate(step) for step in (0, 1, _STEPS // 2, _STEPS)]


class Decay(TrainerCallback):
    """Refuses, once the number of steps is known, a `warmup_stable_decay` whose parts are not all of them.

    Of a decay that is longer than what is left, transformers leaves out the beginning, and trains at a fraction of the
    rate; behind the end of one that ends too early, at the least.
    """

    def __init__(self, section: str) -> None:
        self.section = section

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if args.lr_scheduler_type != SchedulerType.WARMUP_STABLE_DECAY:
            return
        options: Any = args.lr_scheduler_kwargs
        decay, stable = options["num_decay_steps"], options.get("num_stable_steps")
        left = state.max_steps - args.get_warmup_steps(state.max_steps) - (stable or 0)
        where = f"params.yaml: {self.section}.lr_scheduler_kwargs: num_decay_steps: {decay:g}"
        of_all = f"{left:g} of all {state.max_steps} steps are left for it"
        if decay > left:
            raise ParamsError(f"{where}, but {of_all}; set it to at most that")
        if stable is not None and decay < left:
            raise ParamsError(f"{where}, but {of_all}; set it to that, or leave num_stable_steps out")


def _tell(param: str, make: Callable[[], None]) -> None:
    try:
        make()
    except (ImportError, ValueError, TypeError, ArithmeticError) as error:
        raise ParamsError(f"params.yaml: {param}: {' '.join(str(error).split())[:200]}") from None
