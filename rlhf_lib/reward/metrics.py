"""What a reward model is worth: numbers from the rows of data/scores/<stage>.jsonl, as pure functions.

A row is a test response: id (of its prompt), source, score (of the data, in the source's units; higher is better),
target (the score on the target range), reward (the model's) and, where the source has a rule for true quality, gold.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from statistics import fmean
from typing import Any, NamedTuple

from rlhf_lib.common.few import share_se
from rlhf_lib.common.rows import JsonObject

# Gaps between two scores of one prompt, from one number to below the next: labels, 1 and 0, all have a gap of 1.
GAPS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, math.inf)
BINS = 10  # of the probability of the answer that the model prefers, from 0.5 to 1


class Pair(NamedTuple):
    """Two responses to one prompt, one of them better."""

    id: str
    source: str
    gap: float  # by how much it is better, above 0
    margin: float  # by how much its reward is higher

    @property
    def right(self) -> float:
        """1 if the rewards have the order of the scores, half if they are equal."""
        return 0.5 if self.margin == 0 else float(self.margin > 0)


def pairs(rows: Iterable[JsonObject], truth: str = "score") -> list[Pair]:
    """The pairs of responses to one prompt that differ in `truth`."""
    by_prompt = _grouped(rows, lambda row: row["id"])
    found = []
    for of_prompt in by_prompt.values():
        for worse, better in combinations(sorted(of_prompt, key=lambda row: row[truth]), 2):
            # 7.1 - 6.6 is a gap of 0.5, whatever binary floats make of it
            if (gap := round(better[truth] - worse[truth], 9)) > 0:
                found.append(Pair(better["id"], better["source"], gap, better["reward"] - worse["reward"]))
    return found


def summary(rows: Sequence[JsonObject], middle: float | None = None) -> dict[str, Any]:
    """All numbers of a model that learnt an order, or, with the `middle` of the target range, of a regression.

    Without pairs, an accuracy is None. A regression has no calibration: its rewards are no log-odds.
    """
    found = pairs(rows)
    gold = pairs([row for row in rows if "gold" in row], "gold")
    measured: dict[str, Any] = accuracy(found)
    if any("gold" in row for row in rows):
        measured |= {f"gold_{key}": value for key, value in accuracy(gold).items()}
    measured["accuracy_by_gap"] = {
        f"{low:g}-{high:g}" if high < math.inf else f"{low:g}+": accuracy(inside)
        for low, high in pairwise(GAPS)
        if (inside := [pair for pair in found if low <= pair.gap < high])
    }
    by_source = _grouped(found, lambda pair: pair.source)
    measured["accuracy_by_source"] = {source: accuracy(of_source) for source, of_source in sorted(by_source.items())}
    if middle is not None:
        return measured | {"ece": None, "reliability": []} | regression(rows, middle)
    bins = reliability(found)
    return measured | {"ece": calibration_error(bins), "reliability": bins}


def accuracy(found: Sequence[Pair]) -> dict[str, Any]:
    """The share of the pairs that are in the right order, its standard error, and how many pairs there are."""
    right = fmean(pair.right for pair in found) if found else None
    return {"accuracy": right, "accuracy_se": accuracy_se(found), "pairs": len(found)}


def accuracy_se(found: Sequence[Pair]) -> float | None:
    """Standard error of the accuracy over prompts, whose pairs hang together: that of a ratio of two sums, right pairs
    to pairs, in first order [Cochran 1977, Sampling Techniques, equation 6.13]; `share_se` where all or none are right.
    None for a single prompt."""
    if not found:
        return None
    mean = fmean(pair.right for pair in found)
    by_prompt = _grouped(found, lambda pair: pair.id)
    residuals = [sum(pair.right - mean for pair in of_prompt) for of_prompt in by_prompt.values()]
    n = len(residuals)
    return share_se(mean, math.sqrt(n / (n - 1) * sum(r * r for r in residuals)) / len(found) if n > 1 else None, n)


def told(measured: Mapping[str, Any]) -> str:
    """What a stage prints of its model's accuracy, with a remark where chance would do nearly as well."""
    right, error = measured["accuracy"], measured["accuracy_se"]
    if right is None:
        return "no test pairs, so that nothing is known of its accuracy"
    line = f"accuracy {right:.3f} on {measured['pairs']:,} test pairs"
    if error is None or right - 2 * error > 0.5:
        return line
    return f"{line}: not clearly above chance, 0.5 (standard error {error:.3f}); what it rewards or judges may be noise"


def reliability(found: Iterable[Pair]) -> list[dict[str, Any]]:
    """The pairs in bins of equal width by the probability that the model gives the answer it prefers, sigmoid of the
    difference in reward: mean probability, share of the pairs where it is the better one, and number of pairs."""
    binned: dict[int, list[tuple[float, Pair]]] = defaultdict(list)
    for pair in found:
        probability = 1 / (1 + math.exp(-abs(pair.margin)))
        place = min(int((probability - 0.5) * 2 * BINS), BINS - 1)
        binned[place].append((probability, pair))
    return [
        {"probability": fmean(p for p, _ in inside), **accuracy([pair for _, pair in inside])}
        for _, inside in sorted(binned.items())
    ]


def calibration_error(bins: Sequence[dict[str, Any]]) -> float | None:
    """Expected calibration error [Guo 2017, arXiv:1706.04599, equation 3]: the mean distance of accuracy and
    probability, weighted by the pairs of each bin."""
    total = sum(item["pairs"] for item in bins)
    off = sum(item["pairs"] * abs(item["accuracy"] - item["probability"]) for item in bins)
    return off / total if total else None


def regression(rows: Sequence[JsonObject], middle: float) -> dict[str, float | None]:
    """Squared and absolute error of rewards against targets, and how often both lie on one side of the middle.

    A target in the middle itself does not count; a reward there is half right.
    """
    errors = [row["reward"] - row["target"] for row in rows]
    sides = [(row["reward"] - middle) * (row["target"] - middle) for row in rows if row["target"] != middle]
    return {
        "mse": _mean([error * error for error in errors]),
        "mae": _mean([abs(error) for error in errors]),
        "sign_accuracy": _mean([0.5 if side == 0 else float(side > 0) for side in sides]),
    }


def fitted_mse(fitted_on: Sequence[JsonObject], rows: Sequence[JsonObject]) -> float | None:
    """Mean squared error against the targets of `rows` after the straight line from rewards to targets that is best,
    by least squares, on `fitted_on`: rewards of any scale can be compared by it."""
    if not fitted_on:
        return None
    x_mean, y_mean = fmean(row["reward"] for row in fitted_on), fmean(row["target"] for row in fitted_on)
    variance = sum((row["reward"] - x_mean) ** 2 for row in fitted_on)
    covariance = sum((row["reward"] - x_mean) * (row["target"] - y_mean) for row in fitted_on)
    slope = covariance / variance if variance else 0.0
    return _mean([(y_mean + slope * (row["reward"] - x_mean) - row["target"]) ** 2 for row in rows])


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _grouped(items: Iterable[Any], key: Callable[[Any], Hashable]) -> dict[Any, list[Any]]:
    grouped: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        grouped[key(item)].append(item)
    return grouped
