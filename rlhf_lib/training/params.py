"""What the sections of every trainer share; the names are those of transformers' TrainingArguments."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rlhf_lib.common.schema import Above, AtLeast, AtMost, BatchSize, Below, Count, NotNegative, Seed
from rlhf_lib.training.optimizers import BY_LOSS, Optimizer, Schedule, check_optim_args, check_schedule

Decay = Annotated[float, AtLeast(0), Below(1)]  # of a running mean
Rank = Annotated[int, AtLeast(1), AtMost(65_536)]  # of adapters: no layer is wider

FREEZABLE = ("embeddings", "norms", "outer_norms", "attention", "mlp", "head")
IN_LAYERS = ("norms", "attention", "mlp")  # the kinds that may be named in some layers only
# a kind, a kind in some layers, or whole layers: one, or the first and the last of several
PART = re.compile(rf"(?:({'|'.join(IN_LAYERS)}):)?(\d+)(?:-(\d+))?")


@dataclass(frozen=True, kw_only=True)
class OptimizerParams:
    """The optimizer, its schedule and its batches."""

    seed: Seed
    learning_rate: NotNegative
    lr_scheduler_type: Schedule
    lr_scheduler_kwargs: dict[str, int | float | bool | str]
    warmup_steps: NotNegative
    optim: Optimizer
    optim_args: str | None
    weight_decay: NotNegative
    adam_beta1: Decay
    adam_beta2: Decay
    adam_epsilon: Annotated[float, AtLeast(1e-30)]
    max_grad_norm: NotNegative
    per_device_train_batch_size: BatchSize

    def __post_init__(self) -> None:
        check_schedule(self.lr_scheduler_type, self.lr_scheduler_kwargs, self.learning_rate)
        check_optim_args(self.optim, self.optim_args)


@dataclass(frozen=True, kw_only=True)
class QuantizationParams:
    """How weights that are not trained are held; the names are those of TRL's ModelConfig."""

    load_in_8bit: bool
    load_in_4bit: bool

    @property
    def is_quantized(self) -> bool:
        """Whether they are held in 8 or 4 bits."""
        return self.load_in_8bit or self.load_in_4bit


@dataclass(frozen=True, kw_only=True)
class WeightsParams(QuantizationParams):
    """Which weights are trained; the names are those of TRL's ModelConfig."""

    lora_r: Rank | None
    lora_alpha: Count
    lora_target_modules: list[str] | None
    freeze: list[str]

    def __post_init__(self) -> None:
        if self.load_in_8bit and self.load_in_4bit:
            raise ValueError("load_in_4bit: must be false while load_in_8bit is true")
        if self.is_quantized and self.lora_r is None:
            raise ValueError(
                f"lora_r: must be a rank, such as 16, while load_in_{8 if self.load_in_8bit else 4}bit is true: such "
                "weights cannot be trained, adapters on them can"
            )
        if self.freeze and self.lora_r is not None:
            raise ValueError("freeze: must be [] while lora_r is set, which freezes all but the adapters")
        for part in self.freeze:
            if part not in FREEZABLE and not PART.fullmatch(part):
                raise ValueError(
                    f"freeze: must name {', '.join(FREEZABLE)}, layers by number, such as 0-5, or one of "
                    f"{', '.join(IN_LAYERS)} in some layers, such as mlp:1-10; got {part!r}"
                )


@dataclass(frozen=True, kw_only=True)
class BestParams:
    """Which checkpoint a stage's model is taken from, and which are kept until then; the names are those of
    transformers' TrainingArguments and EarlyStoppingCallback.

    metric_for_best_model: of a validation; lower is better if its name ends in `loss`, else higher.
    """

    load_best_model_at_end: bool
    metric_for_best_model: str
    early_stopping_patience: Count | None
    save_total_limit: Count | None

    @property
    def needs_best(self) -> bool:
        """Whether it must be known which validation was the best."""
        return self.load_best_model_at_end or self.early_stopping_patience is not None


@dataclass(frozen=True, kw_only=True)
class TrainerParams(WeightsParams, OptimizerParams, BestParams):
    """A trainer that passes over rows: sft, reward, judge, dpo, rft and kto."""

    per_device_eval_batch_size: BatchSize
    num_train_epochs: Annotated[float, Above(0), AtMost(1_000_000)]
    max_steps: Annotated[int, AtLeast(-1)]
    gradient_accumulation_steps: BatchSize
    train_sampling_strategy: Literal["random", "group_by_length"]
    logging_steps: Count
    eval_strategy: Literal["steps", "epoch"]
    eval_steps: Count
    save_steps: Count
    lora_dropout: Annotated[float, AtLeast(0), Below(1)]

    def __post_init__(self) -> None:
        WeightsParams.__post_init__(self)
        OptimizerParams.__post_init__(self)
        if self.max_steps == 0:
            raise ValueError("max_steps: must be -1 (use num_train_epochs) or at least 1, got 0")
        if self.needs_best and self.lr_scheduler_type in BY_LOSS and self.metric_for_best_model != "eval_loss":
            raise ValueError(
                f"metric_for_best_model: must be eval_loss while lr_scheduler_type is {self.lr_scheduler_type}, which "
                f"goes by the same metric; got {self.metric_for_best_model}"
            )

    def config(self) -> dict[str, Any]:
        """The fields as keyword arguments of the trainer's config class."""
        ours = {"eval_strategy", "lora_dropout", *WeightsParams.__dataclass_fields__, *BestParams.__dataclass_fields__}
        return {key: value for key, value in dataclasses.asdict(self).items() if key not in ours}
