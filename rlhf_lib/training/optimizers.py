"""The schedules and optimizers of transformers' TrainingArguments, and the options that each takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

Schedule: TypeAlias = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
]
# transformers' SchedulerType that go by a validation loss
BY_LOSS = ("reduce_lr_on_plateau", "greedy")

# All of transformers' OptimizerNames but those of GaLore and APOLLO, which need a list of layers of their own
Optimizer: TypeAlias = Literal[
    "adamw_torch_fused",
    "adamw_torch",
    "adafactor",
    "sgd",
    "rmsprop",
    "adagrad",
    "adamw_torch_xla",
    "adamw_torch_npu_fused",
    "adamw_anyprecision",
    "adamw_torch_4bit",
    "adamw_torch_8bit",
    "adamw_bnb_8bit",
    "adamw_8bit",
    "ademamix",
    "ademamix_8bit",
    "lion_32bit",
    "lion_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "lomo",
    "adalomo",
    "grokadamw",
    "schedule_free_radam",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "stable_adamw",
]

_MIN_LR = ("num_cycles", "min_lr", "min_lr_rate")
_PLATEAU = ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps")
# what `lr_scheduler_kwargs` may hold: the arguments of transformers.optimization's functions beside the steps
SCHEDULE_OPTIONS: dict[str, tuple[str, ...]] = {
    "linear": (),
    "cosine": ("num_cycles",),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("lr_end", "power"),
    "constant": (),
    "constant_with_warmup": (),
    "inverse_sqrt": ("timescale",),
    "reduce_lr_on_plateau": _PLATEAU,
    "cosine_with_min_lr": _MIN_LR,
    "cosine_warmup_with_min_lr": (*_MIN_LR, "warmup_lr_rate"),
    "warmup_stable_decay": (
        "num_decay_steps",
        "num_stable_steps",
        "warmup_type",
        "decay_type",
        "min_lr_ratio",
        "num_cycles",
    ),
    "greedy": (*_PLATEAU, "warmup", "max_lr", "smooth", "window_size", "reset_start"),
}
_WORDS = ("mode", "threshold_mode", "warmup_type", "decay_type")  # those that are no numbers
_SWITCHES = ("smooth",)

_ADEMAMIX = ("beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3")
_RMSPROP = ("alpha", "eps", "weight_decay", "momentum", "centered")
_SCHEDULE_FREE = ("weight_lr_power", "r")
_TORCHAO = ("block_size", "bf16_stochastic_round")
# what `optim_args` may hold: transformers.trainer_optimizer passes over others without a word
OPTIM_ARGS: dict[str, tuple[str, ...]] = {
    "sgd": ("momentum", "dampening", "weight_decay", "nesterov"),
    "adagrad": ("lr_decay", "weight_decay", "eps"),
    "rmsprop": _RMSPROP,
    "rmsprop_bnb": _RMSPROP,
    "rmsprop_bnb_8bit": _RMSPROP,
    "rmsprop_bnb_32bit": _RMSPROP,
    "ademamix": _ADEMAMIX,
    "ademamix_8bit": _ADEMAMIX,
    "paged_ademamix_32bit": _ADEMAMIX,
    "paged_ademamix_8bit": _ADEMAMIX,
    "adamw_anyprecision": ("use_kahan_summation", "momentum_dtype", "variance_dtype", "compensation_buffer_dtype"),
    "adamw_torch_4bit": _TORCHAO,
    "adamw_torch_8bit": _TORCHAO,
    "grokadamw": ("alpha_init", "lamb", "gamma", "grokking_signal_decay_rate", "gradient_clipping"),
    "schedule_free_radam": _SCHEDULE_FREE,
    "schedule_free_adamw": _SCHEDULE_FREE,
    "schedule_free_sgd": _SCHEDULE_FREE,
    "stable_adamw": ("decouple_lr", "max_lr", "kahan_sum"),
}


def check_schedule(schedule: Schedule, options: Mapping[str, Any], learning_rate: float) -> None:
    """A `ValueError` for options that the schedule does not take, has to have, or cannot use."""
    for name, value in options.items():
        if name not in SCHEDULE_OPTIONS[schedule]:
            takes = ", ".join(SCHEDULE_OPTIONS[schedule]) or "none"
            raise ValueError(f"lr_scheduler_kwargs.{name}: no option of {schedule}; its options: {takes}")
        wanted, what = _type(name)
        if not isinstance(value, wanted) or (isinstance(value, bool) and bool not in wanted):
            raise ValueError(f"lr_scheduler_kwargs.{name}: must be {what}, got {value!r}")
    if schedule == "warmup_stable_decay" and "num_decay_steps" not in options:
        raise ValueError(
            "lr_scheduler_kwargs: warmup_stable_decay needs num_decay_steps, such as {num_decay_steps: 100}"
        )
    if schedule.endswith("with_min_lr") and ("min_lr" in options) == ("min_lr_rate" in options):
        raise ValueError(f"lr_scheduler_kwargs: {schedule} needs either min_lr or min_lr_rate, the share of the peak")
    lowest = options.get("lr_end", 1e-7)
    if schedule == "polynomial" and learning_rate <= lowest:
        raise ValueError(
            f"learning_rate: a polynomial falls to lr_end, {lowest:g}; set it to more than that, got {learning_rate:g}"
        )


def check_optim_args(optimizer: Optimizer, text: str | None) -> None:
    """A `ValueError` for what is no list of options, such as `momentum=0.9,nesterov=true`, or of another optimizer."""
    if text is None:
        return
    takes = OPTIM_ARGS.get(optimizer, ())
    for entry in text.replace(" ", "").split(","):
        if not re.fullmatch(r"\w+=[^=]+", entry):
            raise ValueError(f"optim_args: must be a list such as momentum=0.9,nesterov=true, or null; got {text!r}")
        name = entry.partition("=")[0]
        if name not in takes:
            raise ValueError(f"optim_args: {name}: no option of {optimizer}; its options: {', '.join(takes) or 'none'}")


def _type(name: str) -> tuple[tuple[type, ...], str]:
    if name in _SWITCHES:
        return (bool,), "true or false"
    return ((str,), "a text") if name in _WORDS else ((int, float), "a number")
