"""What the sections of stages that sample have in common."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lib.common.schema import BatchSize, NewTokens, Positive, Seed, Share, Whole

LEAST_PROMPT = 8  # tokens that a prompt must have room for in a model's context, beside the longest answer


@dataclass(frozen=True, kw_only=True)
class SampledParams:
    """How answers are sampled; the names are those of transformers' GenerationConfig."""

    temperature: Positive
    top_k: Whole
    top_p: Share
    max_new_tokens: NewTokens
    per_device_eval_batch_size: BatchSize
    seed: Seed
