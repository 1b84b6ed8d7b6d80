"""The sections `evaluate` (how the policies are compared) and `best_of_n` (the baseline without training)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rlhf_lib.common.schema import AtLeast, Count, NotEmpty


@dataclass(frozen=True, kw_only=True)
class EvaluateParams:
    """How the policies are sampled on the test prompts."""

    seed: int
    max_prompts: Count | None
    samples_per_prompt: Count
    temperatures: Annotated[list[Annotated[float, AtLeast(0)]], NotEmpty()]
    max_new_tokens: Count
    per_device_eval_batch_size: Count


@dataclass(frozen=True, kw_only=True)
class BestOfNParams:
    """Of how many answers of the SFT model the best is taken."""

    n: list[Annotated[int, AtLeast(2)]]
