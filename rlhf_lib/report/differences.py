"""Differences of two policies, paired by prompt, and which of them count.

A difference counts from two standard errors. Of several that are looked at together each is asked for more, by Holm's
correction, so that together they are wrong as rarely as one. On few prompts none counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from rlhf_lib.common.few import FEW
from rlhf_lib.measure.comparison import by_prompt, paired_difference
from rlhf_lib.report.holm import TWO_ERRORS, holm, two_sided
from rlhf_lib.report.inputs import Inputs, Sample

NAMES = {
    "gold": "true quality",
    "judge": "the judge's score",
    "reward": "reward",
    "kl": "KL to SFT",
    "length": "length",
}


class Difference(NamedTuple):
    """A mean difference and its standard error, None where there is only one prompt."""

    value: float
    se: float | None

    @property
    def clear(self) -> bool:
        return self.se is not None and self.value != 0 and abs(self.value) >= 2 * self.se

    def __str__(self) -> str:
        return plus_minus(self.value, self.se, sign="+")


class Pair(NamedTuple):
    """Two policies on the prompts that both have answered, so many: their means, and the first's less the other's."""

    one: str
    other: str
    means: tuple[float, float]
    found: Difference
    prompts: int

    @property
    def turned(self) -> Pair:
        """The same, the other one first."""
        less = Difference(-self.found.value, self.found.se)
        return Pair(self.other, self.one, (self.means[1], self.means[0]), less, self.prompts)


def plus_minus(value: float, se: float | None, sign: str = "") -> str:
    """A value and its standard error as text."""
    text = number(value, 3, sign)
    return text if se is None else f"{text} ± {se:.3f}"


def number(value: float, digits: int, sign: str = "") -> str:
    """A number with a real minus sign, and without one where it is rounded to zero."""
    return f"{value:{sign}z,.{digits}f}".replace("-", "−")


def difference(one: Sequence[Sample], other: Sequence[Sample], key: str) -> Difference | None:
    """The mean of `key` in `one` less that in `other`, paired by prompt; None where no prompt has it in both."""
    value, se = paired_difference(having(one, key), having(other, key), key)
    return None if value is None else Difference(value, se)


def paired(inputs: Inputs, one: str, other: str, key: str) -> Pair | None:
    """Two policies in the headline mode by the number `key`; None where no prompt has it in both."""
    samples = [having(inputs.drawn(policy), key) for policy in (one, other)]
    shared = set.intersection(*({sample["id"] for sample in drawn} for drawn in samples))
    first, second = ([sample for sample in drawn if sample["id"] in shared] for drawn in samples)
    found = difference(first, second, key)
    if found is None:
        return None
    means = [fmean(by_prompt(drawn, lambda sample: sample[key])) for drawn in (first, second)]
    return Pair(one, other, (means[0], means[1]), found, len(shared))


def count(found: Iterable[tuple[Difference | None, int]]) -> list[bool]:
    """Which of several differences, each with its number of prompts, count when they are looked at together."""
    p = [two_sided(*gap) if gap and prompts >= FEW else 1.0 for gap, prompts in found]
    return [value <= TWO_ERRORS for value in holm(p)]


def having(samples: Sequence[Sample], key: str) -> list[Sample]:
    """The samples that have the number `key`."""
    return [sample for sample in samples if sample.get(key) is not None]
