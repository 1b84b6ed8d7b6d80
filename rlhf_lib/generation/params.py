"""What the sections of stages that sample have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rlhf_lib.common.schema import Above, AtLeast, AtMost, BatchSize, NewTokens, Positive, Seed


@dataclass(frozen=True, kw_only=True)
class SampledParams:
    """How answers are sampled; the names are those of transformers' GenerationConfig."""

    temperature: Positive
    top_k: Annotated[int, AtLeast(0)]
    top_p: Annotated[float, Above(0), AtMost(1)]
    max_new_tokens: NewTokens
    per_device_eval_batch_size: BatchSize
    seed: Seed
