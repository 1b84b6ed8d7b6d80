"""The sections `evaluate` (how the policies are compared) and `best_of_n` (the baseline without training)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rlhf_lib.common.schema import (
    AtLeast,
    AtMost,
    BatchSize,
    Copies,
    Count,
    NewTokens,
    NotEmpty,
    NotNegative,
    Seed,
    Several,
    Share,
    StopStrings,
    Whole,
)
from rlhf_lib.evaluation.samples import mode_name


@dataclass(frozen=True, kw_only=True)
class EvaluateParams:
    """How the policies are sampled on held-out prompts."""

    split: Literal["test", "prompts_validation"]
    seed: Seed
    sources: list[str]
    max_prompts: Count | None
    samples_per_prompt: Copies
    temperatures: Annotated[list[NotNegative], NotEmpty()]
    max_new_tokens: NewTokens
    min_new_tokens: Whole
    top_k: Whole
    top_p: Share
    no_repeat_ngram_size: Whole
    num_beams: Annotated[int, AtLeast(1), AtMost(1000)]
    stop_strings: StopStrings
    per_device_eval_batch_size: BatchSize
    bf16_full_eval: bool

    def __post_init__(self) -> None:
        if self.min_new_tokens >= self.max_new_tokens:
            raise ValueError(f"min_new_tokens: must be below max_new_tokens ({self.max_new_tokens})")
        if self.num_beams > 1 and 0 not in self.temperatures:
            raise ValueError(
                f"num_beams: beam search takes the place of greedy answers; add 0 to temperatures, which are "
                f"{self.temperatures}, or set it to 1"
            )
        named: dict[str, float] = {}
        for temperature in self.temperatures:
            if (name := mode_name(temperature)) in named:
                raise ValueError(
                    f"temperatures: {named[name]} and {temperature} would both be called {name} in the metrics; "
                    "leave one out"
                )
            named[name] = temperature


@dataclass(frozen=True, kw_only=True)
class BestOfNParams:
    """Of how many answers of the SFT model the best is taken."""

    n: list[Several]
