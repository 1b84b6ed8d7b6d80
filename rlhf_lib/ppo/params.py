"""The `ppo` section: proximal policy optimisation. Names are those of TRL's and transformers' options where they have
them."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from rlhf_lib.common.schema import (
    Above,
    BatchSize,
    Copies,
    Count,
    Fraction,
    NewTokens,
    NotEmpty,
    NotNegative,
    Positive,
    Share,
    StopStrings,
    Whole,
)
from rlhf_lib.scoring import source as reward_source
from rlhf_lib.training.optimizers import BY_LOSS
from rlhf_lib.training.params import BestParams, OptimizerParams, WeightsParams


@dataclass(frozen=True, kw_only=True)
class PPOParams(WeightsParams, OptimizerParams, BestParams):
    """Rollouts, rewards, critic, losses, evaluation; the names are those of TRL where it had them."""

    # the rollouts
    total_rollouts: Count
    rollout_batch_size: BatchSize
    generation_batch_size: BatchSize | None
    local_rollout_forward_batch_size: BatchSize | None
    num_generations: Copies
    num_ppo_epochs: Count
    num_minibatches: Count
    # sampling
    response_length: NewTokens
    min_new_tokens: Whole
    temperature: Positive
    top_k: Whole
    top_p: Share
    stop_strings: StopStrings
    gather_for_generation: bool
    # the reward
    reward_funcs: Annotated[list[str], NotEmpty()]
    reward_weights: list[float] | None
    normalize_rewards: bool
    scale_rewards: Literal["none", "running", "group", "batch"]
    reward_clip: Positive | None
    missing_eos_penalty: NotNegative | None
    missing_eos_replaces: bool
    length_penalty: NotNegative
    # policy, critic and reference
    critic: Literal["shared", "separate", "lora", "none"]
    critic_learning_rate: NotNegative | None
    # KL to the reference
    kl_estimator: Literal["k1", "k2", "k3"]
    kl_in: Literal["reward", "loss"]
    use_bias_correction_kl: bool
    kl_coef: NotNegative
    kl_clip: Positive | None
    kl_target: Positive | None
    kl_horizon: Positive
    max_kl: Positive | None
    max_approx_kl: Positive | None
    # the advantages
    advantage_estimator: Literal["gae", "rloo", "grpo", "reinforce"]
    gamma: Fraction
    lam: Fraction
    whiten_rewards: bool
    whiten_advantages: bool
    # the loss
    loss_aggregation: Literal["token", "sequence", "constant"]
    cliprange: Positive
    cliprange_high: Positive | None
    dual_clip: Annotated[float, Above(1)] | None
    cliprange_value: Positive | None
    vf_coef: NotNegative
    entropy_coef: NotNegative
    ptx_coef: NotNegative
    # the run
    eval_rollouts: Count
    max_eval_prompts: Count | None
    save_rollouts: Count
    metric_for_best_model: Literal["reward", "objective"]
    num_completions_to_log: Whole | None

    # options that are none here, and why
    unserved = MappingProxyType(
        {
            "report_to": "trackers are named in the environment, for every stage that trains; take this out, and run "
            "make repro REPORT_TO=tensorboard, or REPORT_TO=tensorboard dvc repro",
        }
    )

    def __post_init__(self) -> None:
        WeightsParams.__post_init__(self)
        OptimizerParams.__post_init__(self)
        if self.lr_scheduler_type in BY_LOSS:
            raise ValueError(f"lr_scheduler_type: {self.lr_scheduler_type} goes by a validation loss; ppo has none")
        whole = self.rollout_batch_size
        for name, part in (("num_generations", self.num_generations), ("num_minibatches", self.num_minibatches)):
            if whole % part:
                raise ValueError(f"{name}: must divide rollout_batch_size ({whole}), got {part}")
        if self.minibatch_size % self.per_device_train_batch_size:
            raise ValueError(
                "per_device_train_batch_size: must divide a minibatch (rollout_batch_size / num_minibatches = "
                f"{self.minibatch_size}), got {self.per_device_train_batch_size}"
            )
        if self.min_new_tokens >= self.response_length:
            raise ValueError(f"min_new_tokens: must be below response_length ({self.response_length})")
        self._check_estimator()
        if self.critic == "lora" and self.lora_r is None:
            raise ValueError("critic: lora needs lora_r, the rank of its adapters; got null")
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError("kl_estimator: k1 has no gradient on average as a loss; set k2 or k3, or kl_in: reward")
        if self.kl_in == "loss" and self.kl_clip is not None:
            raise ValueError("kl_clip: is of the penalty in the reward; set it to null, or kl_in: reward")
        if self.kl_in == "reward" and self.use_bias_correction_kl:
            raise ValueError("use_bias_correction_kl: is of the KL in the loss; set it to false, or kl_in: loss")
        if self.kl_target is not None:
            self._check_adaptive_kl()
        if self.reward_weights is not None and len(self.reward_weights) != len(self.reward_funcs):
            raise ValueError(
                f"reward_weights: {len(self.reward_weights)} for {len(self.reward_funcs)} reward_funcs; one each"
            )
        for entry in self.reward_funcs:
            reward_source.parse(entry)

    def _check_adaptive_kl(self) -> None:
        """A `ValueError` where no factor moves `kl_coef`, or where one could turn it negative."""
        if self.kl_coef == 0:
            raise ValueError("kl_coef: must be above 0 while kl_target is set: it is multiplied, and 0 would stay 0")
        if self.kl_horizon <= 0.2 * self.rollout_batch_size:
            raise ValueError(
                f"kl_horizon: must be above a fifth of rollout_batch_size ({self.rollout_batch_size}), or one rollout "
                f"could turn kl_coef negative; it counts responses, got {self.kl_horizon:g}"
            )

    def _check_estimator(self) -> None:
        """A `ValueError` where estimator, critic, groups and their scale do not go together."""
        estimator = self.advantage_estimator
        if estimator == "gae" and not self.has_critic:
            raise ValueError("critic: gae needs one; set it to shared, or advantage_estimator to rloo, grpo, reinforce")
        if estimator != "gae" and self.has_critic:
            raise ValueError(f"critic: {estimator} has no use for one; set it to none, got {self.critic}")
        if self.critic_learning_rate is not None and not self.has_critic:
            raise ValueError("critic_learning_rate: there is no critic; set it to null")
        if self.compares_groups and self.num_generations == 1:
            raise ValueError(f"num_generations: {estimator} compares the responses to a prompt; set it to 2 or more")
        if self.compares_groups and self.gamma != 1:
            raise ValueError(f"gamma: {estimator} rewards a response as a whole; set it to 1, got {self.gamma:g}")
        if self.scale_rewards in ("group", "batch") and not self.compares_groups:
            raise ValueError(
                f"scale_rewards: {self.scale_rewards} is for rloo and grpo; with {estimator} set it to running or none"
            )

    @property
    def has_critic(self) -> bool:
        """Whether values are learnt."""
        return self.critic != "none"

    @property
    def has_own_critic(self) -> bool:
        """Whether the critic has a trunk of its own, which starts from the reward model."""
        return self.critic in ("separate", "lora")

    @property
    def compares_groups(self) -> bool:
        """Whether an advantage is a comparison with the other responses to the same prompt."""
        return self.advantage_estimator in ("rloo", "grpo")

    @property
    def minibatch_size(self) -> int:
        """Responses to an optimizer step."""
        return self.rollout_batch_size // self.num_minibatches

    @property
    def sampled_at_once(self) -> int:
        """Responses that a process samples at once."""
        return self.generation_batch_size or self.rollout_batch_size

    @property
    def forward_batch_size(self) -> int:
        """Responses to a forward pass of a reward model, or of an evaluation's log-probs."""
        return self.local_rollout_forward_batch_size or self.per_device_train_batch_size

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps per rollout, unless `max_approx_kl` cuts them short."""
        return self.num_ppo_epochs * self.num_minibatches

    def trainer_config(self, num_processes: int = 1) -> dict[str, Any]:
        """The fields that are TrainingArguments, and what follows from the others.

        When to log, evaluate and save is decided at the end of a rollout (`callbacks.RolloutEnd`): `eval_steps` only
        lets Trainer know that there are evaluations.
        """
        micro_batches, rest = divmod(self.minibatch_size, self.per_device_train_batch_size * num_processes)
        if rest:
            raise ValueError(
                f"per_device_train_batch_size: {num_processes} processes with {self.per_device_train_batch_size} each "
                f"must divide a minibatch of {self.minibatch_size} responses"
            )
        names = OptimizerParams.__dataclass_fields__
        return {
            **{name: getattr(self, name) for name in names},
            "num_train_epochs": 1,
            "gradient_accumulation_steps": micro_batches,
            "logging_strategy": "no",
            "eval_strategy": "steps",
            "eval_steps": 1,
        }
