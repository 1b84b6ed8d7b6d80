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

from rlhf_lib.common.few import share_se

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
    """`mean_and_se` of shares, 0 to 1; where all are 0, or all 1, with the error of `share_se`."""
    share, se = mean_and_se(values)
    return share, share_se(share, se, len(values))


def share_of_sums(parts: Sequence[tuple[float, float]]) -> Estimate:
    """The share of the first sum in the second, one row a prompt, with an error as `share_and_se` has."""
    share, se = of_sums(parts, ratio)
    return share, share_se(share, se, len(parts))


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
