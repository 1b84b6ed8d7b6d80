"""The numbers of a study, from its samples: each method as it was chosen and at equal KL, and every two compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from rlhf_lib.report.holm import holm
from rlhf_lib.study import choice, intervals
from rlhf_lib.study.choice import Mixture
from rlhf_lib.study.design import Setting, Study
from rlhf_lib.study.intervals import Array, Estimate
from rlhf_lib.study.results import Results


@dataclass(frozen=True)
class Method:
    """A method on the test prompts: its scores by name, what it has more of them than SFT, and its KL."""

    told: str  # what of it was tested
    kl: Estimate
    scores: Mapping[str, Estimate]
    gains: Mapping[str, Estimate]


@dataclass(frozen=True)
class Pair:
    """Two methods by one score, the better one first; p is adjusted for the number of pairs."""

    better: str
    worse: str
    difference: Estimate
    p: float
    more_seeds: int | None

    @property
    def called(self) -> bool:
        return self.p <= 1 - intervals.LEVEL


@dataclass(frozen=True)
class Verdict:
    """criterion: the best score that the samples have. chosen, equal: by method, at its setting and at equal KL."""

    criterion: str
    most_kl: float
    chosen: Mapping[str, Method]
    equal: Mapping[str, Method]
    chosen_pairs: list[Pair]
    equal_pairs: list[Pair]


def verdict(study: Study, validation: Results, test: Results) -> Verdict:
    """The choice from the validation prompts, and what came of it on the test prompts."""
    most = choice.common_kl(study, validation)
    alone: dict[str, Mixture] = {method: {setting: 1.0} for method, setting in choice.best(study, validation).items()}
    mixed = choice.mixtures(study, validation, most)
    criterion, seeds = test.known[0], len(study.seeds)

    def of(mixtures: Mapping[str, Mixture]) -> tuple[dict[str, Method], list[Pair]]:
        scores = {method: choice.mixed(test, mixture, criterion, seeds) for method, mixture in mixtures.items()}
        methods = {method: _method(test, mixture, seeds) for method, mixture in mixtures.items()}
        return methods, [*pairs(scores)]

    chosen, chosen_pairs = of(alone)
    equal, equal_pairs = of(mixed)
    return Verdict(criterion, most, chosen, equal, chosen_pairs, equal_pairs)


def _method(test: Results, mixture: Mixture, seeds: int) -> Method:
    numbers = {key: choice.mixed(test, mixture, key, seeds) for key in ("kl", *test.known)}
    return Method(
        told(mixture),
        intervals.mean(numbers["kl"]),
        {key: intervals.mean(numbers[key]) for key in test.known},
        {key: intervals.mean(numbers[key] - test.sft[key][:, None]) for key in test.known},
    )


def pairs(scores: Mapping[str, Array]) -> Iterator[Pair]:
    """Every two methods by their scores, (prompts, seeds) each."""
    compared = [_ordered(scores, *two) for two in combinations(scores, 2)]
    estimates = [intervals.difference(scores[better], scores[worse]) for better, worse in compared]
    adjusted = holm([estimate.p for estimate in estimates])
    level = (1 - intervals.LEVEL) / max(1, len(compared))  # among so many pairs
    for (better, worse), estimate, p in zip(compared, estimates, adjusted, strict=True):
        yield Pair(better, worse, estimate, p, intervals.more_seeds(scores[better], scores[worse], level))


def _ordered(scores: Mapping[str, Array], one: str, other: str) -> tuple[str, str]:
    return (one, other) if scores[one].mean() >= scores[other].mean() else (other, one)


def told(mixture: Mixture) -> str:
    """A mixture as people read it: kl_coef 0.2; or 70 % kl_coef 0.2, 30 % SFT."""
    names = {setting: "SFT" if setting is None else params(setting) for setting in mixture}
    if len(mixture) == 1:
        return next(iter(names.values()))
    return ", ".join(f"{100 * weight:.0f} % {names[setting]}" for setting, weight in mixture.items())


def params(setting: Setting) -> str:
    """Its params and their values, without the method."""
    return " ".join(f"{key} {value}" for key, value in setting.params)
