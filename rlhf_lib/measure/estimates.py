"""Standard errors over prompts, which are the independent draws: what is said of one is averaged or summed first.

Means have the textbook error. Ratios, corpus BLEU, perplexity and distinct-n have the jackknife's [Efron & Stein 1981,
doi:10.1214/aos/1176345462]: the statistic is computed again without each prompt in turn. Of a mean it is the textbook
error exactly, of smooth functions of sums it is as good as the bootstrap's, and of any statistic it errs upwards, on
average. The bootstrap does not serve for counts of distinct n-grams: its resamples hold prompts twice, and what is
said twice is not distinct. Nor does the jackknife need random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

Estimate = tuple[float | None, float | None]  # value and standard error; None where there is none


def with_errors(found: Mapping[str, Estimate]) -> dict[str, Any]:
    """Each value by its name, and its standard error beside it, under that name with _se."""
    return {key: number for name, (value, se) in found.items() for key, number in ((name, value), (f"{name}_se", se))}


def mean_and_se(values: Sequence[float]) -> Estimate:
    """Mean and standard error of the mean of independent values; None without values, an error of None for just one."""
    if not values:
        return None, None
    return fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def share_and_se(values: Sequence[float]) -> Estimate:
    """`mean_and_se` of shares, 0 to 1. Where all are 0, or all 1, their spread is 0 and says nothing: the error is then
    half the distance at which all n would still come out alike once in 20, so that two errors reach as far as the
    truth may lie, about 3 / n [Hanley & Lippman-Hand 1983, doi:10.1001/jama.1983.03330370053031]."""
    share, se = mean_and_se(values)
    if share in (0, 1) and se is not None:
        se = (1 - 0.05 ** (1 / len(values))) / 2
    return share, se


def jackknife_se(values: Sequence[float | None]) -> float | None:
    """Standard error of a statistic from its `values` without each of the n independent parts of the data in turn.

    sqrt((n-1)/n * sum of squared deviations from their mean). None for fewer than two, or where one is None.
    """
    known = [value for value in values if value is not None]
    if len(known) < 2 or len(known) < len(values):
        return None
    mean, n = fmean(known), len(known)
    return math.sqrt((n - 1) / n * sum((value - mean) ** 2 for value in known))


def of_sums(parts: Sequence[Sequence[float]], statistic: Callable[[NDArray[np.float64]], float | None]) -> Estimate:
    """A statistic of the column sums of `parts`, one row a prompt, and its standard error."""
    if len(parts) == 0:
        return None, None
    table = np.asarray(parts, dtype=np.float64)
    sums = table.sum(axis=0)
    return statistic(sums), jackknife_se([statistic(sums - part) for part in table])


def ratio(sums: NDArray[np.float64]) -> float | None:
    """The first sum over the second; None over 0."""
    return float(sums[0] / sums[1]) if sums[1] else None


def perplexity(sums: NDArray[np.float64]) -> float | None:
    """exp of nats over tokens, from the sums of both; None without tokens, or where it is past all floats."""
    mean = ratio(sums)
    return math.exp(mean) if mean is not None and mean < 700 else None
