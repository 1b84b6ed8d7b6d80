"""Several comparisons at once."""

from __future__ import annotations

import math
from collections.abc import Sequence


def two_sided(value: float, se: float | None) -> float:
    """The p-value of a number against 0, by the normal distribution; 1 where its error is not known."""
    if se is None or value == 0:
        return 1.0
    return math.erfc(abs(value / se) / math.sqrt(2)) if se else 0.0


def holm(p: Sequence[float]) -> list[float]:
    """p-values of several comparisons, made larger so that together they are wrong as rarely as one [Holm 1979]."""
    adjusted, largest = [0.0] * len(p), 0.0
    for place, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - place) * p[i]))
        adjusted[i] = largest
    return adjusted


TWO_ERRORS = two_sided(2.0, 1.0)  # the p-value of a difference of two standard errors
