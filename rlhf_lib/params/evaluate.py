"""The `evaluate` section: how the policies are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rlhf_lib.params.schema import AtLeast, NotEmpty
from rlhf_lib.params.training import Count


@dataclass(frozen=True, kw_only=True)
class EvaluateParams:
    seed: int
    max_prompts: Count | None
    samples_per_prompt: Count
    temperatures: Annotated[list[Annotated[float, AtLeast(0)]], NotEmpty()]
    max_new_tokens: Count
    per_device_eval_batch_size: Count
