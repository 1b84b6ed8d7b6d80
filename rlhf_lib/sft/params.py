"""The `sft` section: supervised fine-tuning (TRL's SFTConfig)."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lib.common.schema import MaxLength
from rlhf_lib.training.params import TrainerParams


@dataclass(frozen=True, kw_only=True)
class SFTParams(TrainerParams):
    """Supervised fine-tuning."""

    max_length: MaxLength
