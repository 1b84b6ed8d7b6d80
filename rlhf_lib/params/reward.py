"""The `reward` section: the reward model (TRL's RewardConfig)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rlhf_lib.params.schema import Above
from rlhf_lib.params.training import MaxLength, TrainerParams


@dataclass(frozen=True, kw_only=True)
class RewardParams(TrainerParams):
    max_length: MaxLength
    center_rewards_coefficient: Annotated[float, Above(0)] | None
