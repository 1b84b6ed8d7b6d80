"""What a row gives to training: preference pairs, K-way groups, regression targets, answers to fine-tune on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

from rlhf_lib.common.rows import ScoredResponse

Pair = tuple[ScoredResponse, ScoredResponse]  # chosen, rejected
Range = tuple[float, float]
ROUNDING = 1e-9  # 7.1 - 6.6 is a gap of 0.5, whatever binary floats make of it


class PairRule(NamedTuple):
    """Which two responses of a prompt are a pair: the chosen one's score must be higher, and by that much."""

    rule: str  # best_vs_worst, disjoint or all
    min_gap: float = 0.0  # in the units of the scores
    min_ratio: float | None = None  # of the two scores
    max_pairs: int | None = None


def score(response: ScoredResponse) -> float:
    """The score of a response that has one."""
    if response["score"] is None:
        raise ValueError("the response has no score")
    return response["score"]


def scored(responses: Sequence[ScoredResponse]) -> list[ScoredResponse]:
    """The responses that have a score, best first, equals as they come."""
    return sorted((r for r in responses if r["score"] is not None), key=lambda r: -score(r))


def pairs(responses: Sequence[ScoredResponse], rule: PairRule) -> list[Pair]:
    """The (chosen, rejected) pairs, at most `max_pairs`: those with the widest gaps.

    `best_vs_worst`: the first best with the first worst; `disjoint`: the best with the worst, the second best with the
    second worst and so on, so that no response is in two pairs; `all`: every pair, in the order of the responses.
    """
    if rule.rule == "all":
        candidates: list[Pair] = list(permutations((r for r in responses if r["score"] is not None), 2))
    else:
        ranked = scored(responses)
        candidates = list(zip(ranked, reversed(ranked), strict=True))[: len(ranked) // 2]
        if rule.rule == "best_vs_worst" and candidates:
            candidates = [(ranked[0], min(ranked, key=score))]
    found = [(better, worse) for better, worse in candidates if is_pair(score(better), score(worse), rule)]
    if rule.max_pairs is not None and len(found) > rule.max_pairs:
        found = sorted(found, key=lambda pair: score(pair[1]) - score(pair[0]))[: rule.max_pairs]
    return found


def why_no_pair(responses: Sequence[ScoredResponse]) -> str:
    """The reason that a row gave no pair."""
    scores = [score(response) for response in scored(responses)]
    if len(scores) < 2:
        return "single_response"
    return "gap_too_small" if max(scores) - min(scores) > ROUNDING else "tie"


def sft_responses(responses: Sequence[ScoredResponse], which: str, min_score: float | None) -> list[ScoredResponse]:
    """The responses to learn from: the first `best`, `all`, or those `above_score` (of at least `min_score`).

    Responses without a score were written to be learnt from: they are kept, whatever `min_score` says.
    """
    if which == "all" or not scored(responses):
        return list(responses)
    if which == "best":
        return scored(responses)[:1]
    if min_score is None:
        raise ValueError("sft_min_score: needed for above_score")
    return [r for r in responses if r["score"] is None or r["score"] >= min_score]


def group(responses: Sequence[ScoredResponse], size: int | None) -> list[ScoredResponse]:
    """The scored responses, best first; of more than `size`, that many at even distances, best and worst included."""
    ranked = scored(responses)
    if size is None or len(ranked) <= size:
        return ranked
    return [ranked[round(place * (len(ranked) - 1) / (size - 1))] for place in range(size)]


def target(value: float, scores: Range, targets: Range) -> float:
    """A score as a regression target: `scores` is mapped onto `targets` by a line; a single point onto its middle."""
    (low, high), (bottom, top) = scores, targets
    share = (value - low) / (high - low) if high > low else 0.5
    return round(bottom + share * (top - bottom), 6)


def is_pair(better: float, worse: float, rule: PairRule) -> bool:
    """Whether two scores are far enough apart. Where the best and the worst of a prompt are not, no two are."""
    gap = better - worse
    if gap <= ROUNDING or gap < rule.min_gap - ROUNDING:
        return False
    # of a score of 0 or less there is no ratio: a score above 0 is any number of times better
    return rule.min_ratio is None or (better > 0 and better >= worse * rule.min_ratio - ROUNDING)
