"""Means and differences of methods that were trained with several seeds and tested on the same prompts.

A method's numbers are an array (P, S): P prompts, which all methods share, by S seeds, which are its own. A number is

    mean + prompt + seed + rest

with a variance for each part; the rest is what neither tells alone, with the noise of sampling. Prompts and seeds are
both draws: other prompts, or another training, would have given other numbers. So the variance of a mean has both
[Brennan 2001, Generalizability Theory, chapters 3 and 6]:

    V(means of the prompts) / P + sum over methods of (V(means of the seeds) - V(rest) / P) / S

The first term holds the rest already, which is why the second takes it out. Either is known from few draws, the second
from very few: each has Student's t of its own degrees of freedom, and the squares of the two halves add up, as in the
intervals of Graybill & Wang [1980, doi:10.1080/01621459.1980.10477565].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
LEVEL = 0.95  # of intervals, and the confidence from which a difference is called
MOST_SEEDS = 100  # that are thought of


@dataclass(frozen=True)
class Estimate:
    """A value, and its variance: what comes from the prompts and what from the seeds, each with its degrees of
    freedom."""

    value: float
    of_prompts: float
    of_seeds: float
    df_prompts: int
    df_seeds: int

    @property
    def se(self) -> float:
        return math.sqrt(self.of_prompts + self.of_seeds)

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return self.half_at(1 - LEVEL)

    def half_at(self, p: float) -> float:
        """Half the width of the interval that misses the true value with probability `p`."""
        of_prompts = critical(p, self.df_prompts) ** 2 * self.of_prompts
        return math.sqrt(of_prompts + critical(p, self.df_seeds) ** 2 * self.of_seeds)

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


@dataclass(frozen=True)
class Variances:
    """Of the numbers behind a difference: the prompts', and the sums over both methods of the seeds' and the rest's."""

    prompts: float
    seeds: float
    rest: float

    def estimate(self, value: float, prompts: int, seeds: int) -> Estimate:
        """What the estimate from so many prompts, and seeds of either method, would be."""
        of_prompts = (self.prompts + self.rest / seeds) / prompts
        return Estimate(value, of_prompts, self.seeds / seeds, prompts - 1, 2 * (seeds - 1))


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
    return _combined([values])


def difference(one: Array, other: Array) -> Estimate:
    """The mean of one method's numbers less that of another's, on the same prompts in the same order."""
    return _combined([one, -other])


def _combined(methods: Sequence[Array]) -> Estimate:
    prompts, seeds = methods[0].shape
    of_prompts = float(sum(values.mean(axis=1) for values in methods).var(ddof=1)) / prompts
    of_seeds = sum(values.mean(axis=0).var(ddof=1) / seeds - rest(values) / values.size for values in methods)
    value = float(sum(values.mean() for values in methods))
    return Estimate(value, of_prompts, max(0.0, float(of_seeds)), prompts - 1, len(methods) * (seeds - 1))


def variances(one: Array, other: Array) -> Variances:
    """The parts of the variance of a difference, none of them below 0."""
    prompts, seeds = one.shape
    found, rests = difference(one, other), rest(one) + rest(other)
    return Variances(max(0.0, found.of_prompts * prompts - rests / seeds), found.of_seeds * seeds, rests)


def rest(values: Array) -> float:
    """The variance of what neither prompt nor seed tells: the mean square of their interaction."""
    prompts, seeds = values.shape
    left = values - values.mean(axis=1, keepdims=True) - values.mean(axis=0) + values.mean()
    return float((left**2).sum() / ((prompts - 1) * (seeds - 1)))


def more_seeds(one: Array, other: Array) -> int | None:
    """How many more seeds of either method would tell a difference of the size that was seen from 0; 0: none more.

    None where more than `MOST_SEEDS` would not: only other or more prompts can.
    """
    prompts, seeds = one.shape
    found, parts = difference(one, other).value, variances(one, other)
    enough = (s for s in range(seeds, MOST_SEEDS + 1) if parts.estimate(found, prompts, s).half < abs(found))
    return next((s - seeds for s in enough), None)


def holm(p: Sequence[float]) -> list[float]:
    """p-values of several comparisons, made larger so that together they are wrong as rarely as one [Holm 1979]."""
    adjusted, largest = [0.0] * len(p), 0.0
    for place, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = largest
    return adjusted
