"""The params of stage `prepare`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from rlhf_lib.common.schema import (
    Above,
    AtLeast,
    AtMost,
    Count,
    Fraction,
    NotEmpty,
    NotNegative,
    Positive,
    Processes,
    Seed,
    Share,
    shown,
)

LEAST_WIDTH, LARGEST_TARGET = 1e-3, 1e6  # of the range of rewards: their squares are what regression learns by
Role = Literal["sft", "preference", "reward", "dpo", "kto", "judge", "prompts", "test"]


@dataclass(frozen=True)
class MixtureParams:
    """What one source gives to the mixture; every field may be left out. See docs/data.md."""

    roles: Annotated[list[Role], NotEmpty()] | None = None  # null: those of its reader
    max_rows: Count | None = None
    weight: Positive | None = None  # the sources with weights keep rows in that proportion
    share: Share | None = None  # of all rows of the mixture
    min_score_gap: NotNegative | None = None  # instead of prepare.min_score_gap
    min_score_ratio: Annotated[float, AtLeast(1)] | None = None  # instead of prepare.min_score_ratio
    score_range: list[float] | None = None  # scores that become the ends of prepare.target_range

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.max_rows, self.weight, self.share)) > 1:
            raise ValueError("max_rows: give one of max_rows, weight and share, not several")
        if self.score_range is not None:
            check_range("score_range", self.score_range)


@dataclass(frozen=True)
class PrepareParams:
    """How rows become splits; see the comments in params.yaml."""

    mixture: dict[str, MixtureParams]
    languages: list[str]
    language_confidence: Fraction
    drop_patterns: list[str]
    tokenizer_name_or_path: str | None
    tokenizer_revision: str | None
    max_prompt_tokens: Count | None
    max_response_tokens: Count | None
    min_response_chars: Count | None
    too_long: Literal["drop", "truncate"]
    pair_rule: Literal["best_vs_worst", "disjoint", "all"]
    max_pairs: Count | None
    min_score_gap: NotNegative
    min_score_ratio: Annotated[float, AtLeast(1)] | None
    group_size: Annotated[int, AtLeast(2)] | None
    target_range: list[float]
    sft_responses: Literal["best", "above_score", "all"]
    sft_min_score: float | None
    sft_share: Share | None
    reward_share: Share | None
    preference_share: Share
    judge_share: Share
    validation_share: Annotated[float, Above(0), AtMost(0.5)]
    test_share: Fraction
    upstream_test: bool
    minhash_threshold: Share | None
    num_proc: Processes | None
    seed: Seed

    def __post_init__(self) -> None:
        total = (self.sft_share or 0) + (self.reward_share or 0)
        total += self.preference_share + self.judge_share + self.test_share
        if abs(total - 1) > 1e-6:
            raise ValueError(
                f"preference_share: sft_share + reward_share + preference_share + judge_share + test_share must be 1, "
                f"got {total:.6g}"
            )
        if self.sft_responses == "above_score" and self.sft_min_score is None:
            raise ValueError("sft_min_score: must be set while prepare.sft_responses is above_score")
        if (self.max_prompt_tokens or self.max_response_tokens) and self.tokenizer_name_or_path is None:
            raise ValueError(
                "tokenizer_name_or_path: must be set where max_prompt_tokens or max_response_tokens is; "
                "give the base model's"
            )
        check_range("target_range", self.target_range)
        low, high = self.target_range
        if high - low < LEAST_WIDTH or max(abs(low), abs(high)) > LARGEST_TARGET:
            raise ValueError(
                f"target_range: must be at least {LEAST_WIDTH:g} wide and within {LARGEST_TARGET:g} of 0, got "
                f"{self.target_range}"
            )
        shares = [entry.share for entry in self.mixture.values() if entry.share is not None]
        if sum(shares) > 1 + 1e-6:
            raise ValueError(f"mixture: the shares must not be more than 1 together, got {sum(shares):.6g}")
        for pattern in self.drop_patterns:
            try:
                re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                raise ValueError(f"drop_patterns: {shown(pattern)} is not a regular expression: {error}") from None


def check_range(name: str, value: list[float]) -> None:
    """Raise `ValueError` unless `value` is a lower and a higher number."""
    if len(value) != 2 or not value[0] < value[1]:
        raise ValueError(f"{name}: must be two numbers, the lower first, got {value}")
