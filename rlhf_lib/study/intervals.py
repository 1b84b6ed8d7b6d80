"""Means and differences of methods that were trained with several seeds and tested on the same prompts.

A method's numbers are an array (P, S): P prompts, which all methods share, by S seeds, which are its own. A number is

    mean + prompt + seed + rest

with a variance for each part; the rest is what neither tells alone, with the noise of sampling. Prompts and seeds are
both draws: other prompts, or another training, would have given other numbers. So the variance of a mean has both
[Brennan 2001, Generalizability Theory, chapters 3 and 6]:

    V(means of the prompts) / P + sum over methods of (V(means of the seeds) - V(rest) / P) / S

The first term holds the rest already, which is why the second takes it out. Both are estimates: that of a few seeds is
rough. The interval of one method has Student's t for either term, with its own degrees of freedom, and the squares of
the two halves add up [Graybill & Wang 1980, doi:10.1080/01621459.1980.10477565]. That of a difference, which has the
seeds of two methods, has the degrees of freedom of Satterthwaite [1946, doi:10.2307/3002019] for the sum. In simulated
studies of three seeds and 50 or 350 prompts, with seeds that matter or do not, the first covers the truth in 94.8 to
96.8 % and the second in 96.1 to 98.1 %; of two seeds in 93 to 96.6 % and 96 to 97.8 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVEL = 0.95  # of intervals, and the confidence from which a difference is called
MOST_SEEDS = 100  # that are thought of


@dataclass(frozen=True)
class Estimate:
    """A value and the terms of its variance, each with its degrees of freedom."""

    value: float
    terms: tuple[tuple[float, int], ...]

    @property
    def se(self) -> float:
        return math.sqrt(sum(variance for variance, _ in self.terms))

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return self.half_at(1 - LEVEL)

    def half_at(self, p: float) -> float:
        """Half the width of the interval that misses the true value with probability `p`."""
        return math.sqrt(sum(critical(p, df) ** 2 * variance for variance, df in self.terms))

    @property
    def p(self) -> float:
        """The probability with which the interval that just touches 0 misses the true value: the two-sided p-value."""
        if self.se == 0:
            return float(self.value == 0)
        low, high = 0.0, 1.0
        for _ in range(24):
            middle = (low + high) / 2
            low, high = (low, middle) if self.half_at(middle) < abs(self.value) else (middle, high)
        return high


@lru_cache(maxsize=1024)
def critical(p: float, df: int) -> float:
    """What Student's t exceeds in size with probability `p`."""
    low, high = 0.0, 1.0
    while _beyond(high, df) > p:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _beyond(middle, df) > p else (low, middle)
    return high


def _beyond(t: float, df: int) -> float:
    """The probability of more than `t` in size [Abramowitz & Stegun 1964, 26.7.3 and 26.7.4]."""
    angle, square = math.atan2(t, math.sqrt(df)), df / (df + t * t)
    term, total = (math.sqrt(square), 0.0) if df % 2 else (1.0, 0.0)
    for k in range(1 + df % 2, df, 2):
        total += term
        term *= square * k / (k + 1)
    within = math.sin(angle) * total
    return 1 - (2 / math.pi * (angle + within) if df % 2 else within)


def mean(values: Array) -> Estimate:
    """The mean of one method's numbers (P, S), of two prompts and two seeds or more."""
    prompts, seeds = values.shape
    of_prompts = float(values.mean(axis=1).var(ddof=1)) / prompts
    of_seeds = float(values.mean(axis=0).var(ddof=1)) / seeds - rest(values) / values.size
    return Estimate(float(values.mean()), ((of_prompts, prompts - 1), (max(0.0, of_seeds), seeds - 1)))


def difference(one: Array, other: Array) -> Estimate:
    """The mean of one method's numbers less that of another's, on the same prompts in the same order."""
    return Variances.of(one, other).estimate(float(one.mean() - other.mean()), *one.shape)


@dataclass(frozen=True)
class Variances:
    """Of what a difference is made of: the means of the prompts and, of either method, the means of the seeds and the
    rest. The rest is in both: `prompts` and `seeds` are as they are seen with `trained` seeds."""

    prompts: float
    seeds: tuple[float, float]
    rest: tuple[float, float]
    trained: int

    @classmethod
    def of(cls, one: Array, other: Array) -> Variances:
        methods = (one, other)
        of_prompts = float((one.mean(axis=1) - other.mean(axis=1)).var(ddof=1))
        first, second = (float(values.mean(axis=0).var(ddof=1)) for values in methods)
        return cls(of_prompts, (first, second), (rest(one), rest(other)), one.shape[1])

    def estimate(self, value: float, prompts: int, seeds: int) -> Estimate:
        """What the estimate from so many prompts, and seeds of either method, would be."""
        # the rest of more seeds averages out of the prompts' means
        of_prompts = max(0.0, self.prompts + sum(self.rest) * (1 / seeds - 1 / self.trained)) / prompts
        of_seeds = sum(self.seeds) / seeds
        # what is taken out is itself uncertain: it never leaves less than half of the prompts' part
        variance = max(of_prompts + of_seeds - sum(self.rest) / (prompts * seeds), of_prompts / 2)
        squares = of_prompts**2 / (prompts - 1) + sum((part / seeds) ** 2 for part in self.seeds) / (seeds - 1)
        return Estimate(value, ((variance, max(1, round(variance**2 / squares)) if squares else 1),))


def rest(values: Array) -> float:
    """The variance of what neither prompt nor seed tells: the mean square of their interaction."""
    prompts, seeds = values.shape
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    return float((left**2).sum() / ((prompts - 1) * (seeds - 1)))


def more_seeds(one: Array, other: Array, p: float) -> int | None:
    """How many more seeds of either method would tell a difference of the size that was seen from 0, at a p-value of
    `p`; 0: none more.

    None where more than `MOST_SEEDS` would not: only other or more prompts can.
    """
    prompts, seeds = one.shape
    found, parts = difference(one, other).value, Variances.of(one, other)
    enough = (s for s in range(seeds, MOST_SEEDS + 1) if parts.estimate(found, prompts, s).half_at(p) < abs(found))
    return next((s - seeds for s in enough), None)
