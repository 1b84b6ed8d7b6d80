"""What the sections of every trainer share; the names are those of transformers' TrainingArguments."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rlhf_lib.params.schema import Above, AtLeast, AtMost

Positive = Annotated[float, Above(0)]
Fraction = Annotated[float, AtLeast(0), AtMost(1)]
Count = Annotated[int, AtLeast(1)]
MaxLength = Annotated[int, AtLeast(8)]


@dataclass(frozen=True, kw_only=True)
class OptimizerParams:
    seed: int
    learning_rate: Annotated[float, AtLeast(0)]
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"]
    warmup_steps: Annotated[float, AtLeast(0)]
    weight_decay: Annotated[float, AtLeast(0)]
    adam_beta1: Fraction
    adam_beta2: Fraction
    max_grad_norm: Annotated[float, AtLeast(0)]
    per_device_train_batch_size: Count


@dataclass(frozen=True, kw_only=True)
class TrainerParams(OptimizerParams):
    num_train_epochs: Positive
    max_steps: Annotated[int, AtLeast(-1)]
    gradient_accumulation_steps: Count
    train_sampling_strategy: Literal["random", "group_by_length"]
    logging_steps: Count
    eval_steps: Count
    save_steps: Count

    def __post_init__(self) -> None:
        if self.max_steps == 0:
            raise ValueError("max_steps: must be -1 (use num_train_epochs) or at least 1, got 0")

    def config(self) -> dict[str, Any]:
        """The fields as keyword arguments of the trainer's config class."""
        return dataclasses.asdict(self)
