"""The `ppo` section: proximal policy optimisation. Names are those of TRL's PPOConfig where it had the option."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rlhf_lib.params.schema import Above, AtLeast
from rlhf_lib.params.training import Count, Fraction, OptimizerParams, Positive


@dataclass(frozen=True, kw_only=True)
class PPOParams(OptimizerParams):
    total_rollouts: Count
    rollout_batch_size: Count
    num_ppo_epochs: Count
    num_minibatches: Count
    response_length: Count
    temperature: Positive
    critic: Literal["shared", "separate"]
    vf_coef: Annotated[float, AtLeast(0)]
    cliprange: Positive
    cliprange_value: Positive | None
    gamma: Fraction
    lam: Fraction
    whiten_advantages: bool
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_coef: Annotated[float, AtLeast(0)]
    kl_target: Annotated[float, Above(0)] | None
    kl_horizon: Positive
    missing_eos_penalty: Annotated[float, AtLeast(0)] | None
    eval_rollouts: Count
    save_rollouts: Count

    def __post_init__(self) -> None:
        if self.rollout_batch_size % self.num_minibatches:
            raise ValueError(
                f"num_minibatches: must divide rollout_batch_size ({self.rollout_batch_size}), "
                f"got {self.num_minibatches}"
            )
        if self.minibatch_size % self.per_device_train_batch_size:
            raise ValueError(
                "per_device_train_batch_size: must divide a minibatch (rollout_batch_size / num_minibatches = "
                f"{self.minibatch_size}), got {self.per_device_train_batch_size}"
            )

    @property
    def minibatch_size(self) -> int:
        """Responses to an optimizer step."""
        return self.rollout_batch_size // self.num_minibatches

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps to a rollout."""
        return self.num_ppo_epochs * self.num_minibatches

    def trainer_config(self) -> dict[str, Any]:
        """The fields that are TrainingArguments, and what follows from the others."""
        names = OptimizerParams.__dataclass_fields__
        return {
            **{name: getattr(self, name) for name in names},
            "num_train_epochs": 1,
            "gradient_accumulation_steps": self.minibatch_size // self.per_device_train_batch_size,
            "logging_steps": self.steps_per_rollout,
            "eval_steps": self.eval_rollouts * self.steps_per_rollout,
            "save_steps": self.save_rollouts * self.steps_per_rollout,
        }
