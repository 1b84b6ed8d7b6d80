"""The params of stage `prepare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rlhf_lib.params.schema import Above, AtLeast, AtMost

Share = Annotated[float, Above(0), AtMost(1)]


@dataclass(frozen=True)
class PrepareParams:
    """How rows become splits; see the comments in params.yaml."""

    languages: list[str]
    language_confidence: Annotated[float, AtLeast(0), AtMost(1)]
    pair_rule: Literal["best_vs_worst", "all"]
    min_score_gap: Annotated[float, AtLeast(0)]
    sft_responses: Literal["best", "above_score", "all"]
    sft_min_score: float | None
    sft_share: Share
    preference_share: Share
    validation_share: Annotated[float, Above(0), AtMost(0.5)]
    test_share: Share
    seed: int

    def __post_init__(self) -> None:
        total = self.sft_share + self.preference_share + self.test_share
        if abs(total - 1) > 1e-6:
            raise ValueError(f"sft_share: sft_share + preference_share + test_share must be 1, got {total:.6g}")
        if self.sft_responses == "above_score" and self.sft_min_score is None:
            raise ValueError("sft_min_score: must be set while prepare.sft_responses is above_score")
