"""What is chosen on validation prompts: a setting of each method, and how its settings are mixed for an equal KL.

Methods can be compared at one KL k though none was run there: a mixture, which answers by one policy or by another as a
coin falls, has their mean score and, since KL is convex, at most their mean KL. Of all mixtures of a method's settings
and the SFT model within k nats, the best by the criterion is made of two at most: it lies on the upper hull of
(KL, score).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from rlhf_lib.common.policies import METHODS
from rlhf_lib.study.design import Setting, Study
from rlhf_lib.study.intervals import Array
from rlhf_lib.study.results import Results

Mixture = Mapping[Setting | None, float]  # weights that sum to 1; None is the SFT model


def best(study: Study, validation: Results) -> dict[str, Setting]:
    """By method, the setting with the highest mean of the criterion; of equal ones the first."""
    return {
        method: max(settings, key=lambda setting: validation.settings[setting][study.criterion].mean())
        for method, settings in study.settings.items()
    }


def common_kl(study: Study, validation: Results) -> float:
    """The KL that every method's settings reach: the least of the methods' greatest. An estimate may be below 0.

    Controls do not count: they are there because they do not go far.
    """
    kl = {setting: float(numbers["kl"].mean()) for setting, numbers in validation.settings.items()}
    methods = [method for method in study.settings if not METHODS[method].section] or [*study.settings]
    return max(0.0, min(max(kl[setting] for setting in study.settings[method]) for method in methods))


def mixtures(study: Study, validation: Results, most: float) -> dict[str, Mixture]:
    """By method, the mixture of the highest mean of the criterion within a KL of `most` nats."""
    return {method: _mixture(study, method, validation, most) for method in study.settings}


def _mixture(study: Study, method: str, validation: Results, most: float) -> Mixture:
    kl: dict[Setting | None, float] = {None: 0.0}
    score: dict[Setting | None, float] = {None: float(validation.sft[study.criterion].mean())}
    for setting in study.settings[method]:
        numbers = validation.settings[setting]
        kl[setting], score[setting] = float(numbers["kl"].mean()), float(numbers[study.criterion].mean())
    mixed: list[Mixture] = [{setting: 1.0} for setting in kl if kl[setting] <= most]
    for one, other in combinations(kl, 2):
        if (kl[one] - most) * (kl[other] - most) < 0:
            weight = (most - kl[other]) / (kl[one] - kl[other])
            mixed.append({one: weight, other: 1 - weight})
    return max(mixed, key=lambda weights: sum(weight * score[setting] for setting, weight in weights.items()))


def mixed(results: Results, mixture: Mixture, key: str, seeds: int) -> Array:
    """A number of a mixture, (prompts, seeds); of kl, what its KL is at most."""
    sft = np.repeat(results.sft[key][:, None], seeds, axis=1)
    parts = (weight * (sft if s is None else results.settings[s][key]) for s, weight in mixture.items())
    return np.sum([*parts], axis=0)
