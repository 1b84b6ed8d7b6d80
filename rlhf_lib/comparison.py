"""Numbers of one policy's samples, and of their difference from the SFT model's samples of the same prompts.

A sample is a row of data/samples/<policy>.jsonl: id (of the prompt), draw (its number among the prompt's samples),
mode, response, reward, logprob and ref_logprob (nats, of the policy and of the SFT model at the sampling
temperature), length (tokens), finished and, where the source has a rule for true quality, gold and format.
Every standard error is over prompts, whose draws are averaged first.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, pairwise
from statistics import fmean, stdev
from typing import Any

Sample = dict[str, Any]


def mode_name(temperature: float) -> str:
    """The name of a sampling temperature in metrics: t1, t0_7, greedy. DVC reads a dot as a level."""
    return f"t{temperature:g}".replace(".", "_") if temperature > 0 else "greedy"


def mean_and_se(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of the mean of independent values; the error of a single value is 0."""
    return fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def by_prompt(samples: Iterable[Sample], value: Callable[[Sample], float]) -> list[float]:
    """The mean of `value` over each prompt's draws, prompts in order of first appearance."""
    grouped: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        grouped[sample["id"]].append(value(sample))
    return [fmean(values) for values in grouped.values()]


def distinct_2(texts: Iterable[str]) -> float:
    """Distinct word pairs over all word pairs of the texts [Li 2016, arXiv:1510.03055]; 0 if there are none."""
    words = [text.split() for text in texts]
    pairs = [pair for line in words for pair in pairwise(line)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0


def wins(reward: float, baseline: float) -> float:
    """1 for a win over the baseline, half for a tie."""
    return 0.5 if reward == baseline else float(reward > baseline)


def summary(samples: Sequence[Sample], baseline: Sequence[Sample]) -> dict[str, Any]:
    """The numbers of one policy in one mode; `baseline` are the SFT model's samples of the same prompts and draws."""
    sft = {(sample["id"], sample["draw"]): sample for sample in baseline}
    measured: dict[str, Any] = {}

    def add(name: str, value: Callable[[Sample], float]) -> None:
        measured[name], measured[f"{name}_se"] = mean_and_se(by_prompt(samples, value))

    add("reward", lambda s: s["reward"])
    add("win_rate", lambda s: wins(s["reward"], sft[s["id"], s["draw"]]["reward"]))
    add("kl", lambda s: s["logprob"] - s["ref_logprob"])
    add("length", lambda s: s["length"])
    measured["eos_rate"] = fmean(sample["finished"] for sample in samples)
    measured["distinct_2"] = distinct_2(sample["response"] for sample in samples)
    if all("gold" in sample for sample in samples):
        add("gold", lambda s: s["gold"])
        add("gold_gain", lambda s: s["gold"] - sft[s["id"], s["draw"]]["gold"])
        measured["gold_by_format"] = by_format(samples)
    return measured


def by_format(samples: Iterable[Sample]) -> dict[str, float]:
    """Mean true quality by the form of answer that the prompt asks for."""
    grouped: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        grouped[sample["format"]].append(sample["gold"])
    return {name: fmean(values) for name, values in sorted(grouped.items())}


def order_accuracy(truth: Sequence[Sequence[float]], predicted: Sequence[Sequence[float]]) -> tuple[float | None, int]:
    """Share of the pairs within a group that `predicted` orders as `truth` does, and the number of such pairs.

    Pairs that are equal in `truth` do not count; without any pair the share is None. A tie in `predicted` is half
    right.
    """
    right, total = 0.0, 0
    for true_scores, scores in zip(truth, predicted, strict=True):
        for (t1, s1), (t2, s2) in combinations(zip(true_scores, scores, strict=True), 2):
            if t1 != t2:
                total += 1
                right += 0.5 if s1 == s2 else float((t1 > t2) == (s1 > s2))
    return (right / total if total else None), total
