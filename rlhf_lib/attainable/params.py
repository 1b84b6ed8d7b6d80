"""The `attainable` section: how the best that any policy could reach is estimated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from rlhf_lib.common.schema import AtLeast, AtMost, BatchSize, Count, Positive, Seed

RewardWeights: Any = list[float] | None  # of ppo.reward_funcs


@dataclass(frozen=True, kw_only=True)
class AttainableParams:
    """How many answers of the SFT model it is estimated from, and for which weights of the KL."""

    n: Annotated[int, AtLeast(0), AtMost(100_000)]
    max_prompts: Count | None
    betas: list[Positive]
    per_device_eval_batch_size: BatchSize
    seed: Seed

    def __post_init__(self) -> None:
        if self.n == 1:
            raise ValueError("n: must be at least 2, or 0 to leave it out; one answer cannot be weighed against others")
        for index, beta in enumerate(self.betas):
            if beta in self.betas[:index]:
                raise ValueError(f"betas[{index}]: {beta:g} stands there twice; remove one")
