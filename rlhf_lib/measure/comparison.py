"""Samples by their prompt, and what compares two numbers of theirs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations
from statistics import fmean

from rlhf_lib.evaluation.samples import Sample
from rlhf_lib.measure.estimates import Estimate, mean_and_se

Opponents = Callable[[Sample], Sequence[Sample]]  # the samples that one is compared with; none: nothing is said of it


def group_by_prompt(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The samples of each prompt's id, prompts in order of first appearance."""
    grouped: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        grouped[sample["id"]].append(sample)
    return grouped


def same_draw(samples: Iterable[Sample]) -> Opponents:
    """The one of `samples` that has the prompt and the draw of another sample."""
    found = {(sample["id"], sample["draw"]): [sample] for sample in samples}
    return lambda sample: found.get((sample["id"], sample["draw"]), [])


def by_prompt(samples: Iterable[Sample], value: Callable[[Sample], float | None]) -> list[float]:
    """The mean of `value` over each prompt's draws, prompts in order of first appearance.

    Draws without a value are left out, and so are prompts all of whose draws are.
    """
    found = ([value(s) for s in draws] for draws in group_by_prompt(samples).values())
    known = ([v for v in values if v is not None] for values in found)
    return [fmean(values) for values in known if values]


def paired_difference(one: Iterable[Sample], other: Iterable[Sample], key: str) -> Estimate:
    """Mean of `key` in `one` less that in `other`, paired by prompt, and its standard error over prompts.

    Prompts that only one of them has are left out; (None, None) where nothing is left. All samples have the key.
    """
    first, second = group_by_prompt(one), group_by_prompt(other)
    shared = [(first[prompt], second[prompt]) for prompt in first if prompt in second]
    return mean_and_se([fmean(s[key] for s in a) - fmean(s[key] for s in b) for a, b in shared])


def wins(sample: Sample, other: Sample, key: str) -> float:
    """1 where the number `key` of a sample is above that of another one, half for a tie.

    The same answer is a tie: its scores may differ by the rounding of the batches in which each was read.
    """
    if sample["response"] == other["response"] or sample[key] == other[key]:
        return 0.5
    return float(sample[key] > other[key])


def order_accuracy(truth: Sequence[Sequence[float]], predicted: Sequence[Sequence[float]]) -> tuple[float | None, int]:
    """Share of the pairs within a group that `predicted` orders as `truth` does, and the number of such pairs.

    Pairs that are equal in `truth` do not count; without any pair the share is None. A tie in `predicted` is half
    right.
    """
    counts = [ordered_pairs(t, p) for t, p in zip(truth, predicted, strict=True)]
    right, total = sum(r for r, _ in counts), sum(n for _, n in counts)
    return (right / total if total else None), total


def ordered_pairs(truth: Sequence[float], predicted: Sequence[float]) -> tuple[float, int]:
    """How many pairs of a group `predicted` orders as `truth` does (a tie counts half), and how many `truth` orders."""
    right, total = 0.0, 0
    for (t1, s1), (t2, s2) in combinations(zip(truth, predicted, strict=True), 2):
        if t1 != t2:
            total += 1
            right += 0.5 if s1 == s2 else float((t1 > t2) == (s1 > s2))
    return right, total
