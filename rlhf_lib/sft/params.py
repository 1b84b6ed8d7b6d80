"""The `sft` section: supervised fine-tuning (TRL's SFTConfig)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlhf_lib.common.schema import MaxLength
from rlhf_lib.training.params import TrainerParams


@dataclass(frozen=True, kw_only=True)
class SFTParams(TrainerParams):
    """Supervised fine-tuning."""

    max_length: MaxLength
    metric_for_best_model: Literal["eval_loss", "eval_mean_token_accuracy"]
