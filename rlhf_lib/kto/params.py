"""The `kto` section (TRL's KTOConfig)."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from rlhf_lib.common.schema import BatchSize, MaxLength, NotNegative, Positive
from rlhf_lib.training.params import TrainerParams


@dataclass(frozen=True, kw_only=True)
class KTOParams(TrainerParams):
    """The loss of good and of bad answers, and how far it may move the policy."""

    metric_for_best_model: Literal["eval_loss", "eval_rewards/margins"]
    max_length: MaxLength
    precompute_ref_batch_size: BatchSize
    beta: Positive
    loss_type: Literal["kto", "apo_zero_unpaired"]
    desirable_weight: NotNegative
    undesirable_weight: NotNegative

    # options of TRL's KTOTrainer that are none here, and why
    unserved = MappingProxyType(
        {
            **dict.fromkeys(
                ("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
                "the reference's log-probs are computed once, so that it cannot follow the policy; take this out, and "
                "let the policy move further with a smaller kto.beta",
            ),
            "precompute_ref_log_probs": "stage kto always does so; take this out",
        }
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.estimates_kl and self.per_device_train_batch_size == 1:
            raise ValueError(
                "per_device_train_batch_size: must be at least 2 while kto.loss_type is kto, which estimates the KL by "
                "the answers to other prompts of a batch; raise it, or set loss_type to apo_zero_unpaired"
            )
        if not self.desirable_weight and not self.undesirable_weight:
            raise ValueError(
                "desirable_weight: must not be 0 while kto.undesirable_weight is 0: nothing would be learnt"
            )

    @property
    def estimates_kl(self) -> bool:
        """Whether the loss compares rewards with the KL, and not with 0."""
        return self.loss_type == "kto"

    def config(self) -> dict[str, Any]:
        """As for every trainer; TRL is told that the order is fixed, which the rows of its batches are."""
        return {**super().config(), "train_sampling_strategy": "sequential"}
