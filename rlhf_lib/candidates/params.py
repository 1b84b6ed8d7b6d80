"""The section `candidates`: answers of the SFT model to choose from."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lib.common.schema import Count, Several
from rlhf_lib.generation.params import SampledParams


@dataclass(frozen=True, kw_only=True)
class CandidatesParams(SampledParams):
    """How many answers to how many prompts."""

    n: Several
    max_prompts: Count | None
