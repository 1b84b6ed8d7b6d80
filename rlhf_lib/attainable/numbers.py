"""metrics/attainable.json and .tsv: the best policy's numbers, and which share of them each policy reached.

Each number is a mean over prompts with its standard error beside it, `<name>_se`. What is compared is of the same
prompts and paired by them; a share is a ratio of two such means.

The best that any policy reaches within k nats of the SFT model is the least of objective(beta) + beta k over beta, that
is, at the beta whose best policy has that KL [Boyd & Vandenberghe 2004, section 5.1]. There an error of beta does not
count at first order, so that the difference of a policy's score from it is, prompt by prompt,

    objective(beta) + beta kl - score

and the spread of that over prompts holds the error of the policy's KL as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from rlhf_lib.attainable import estimates
from rlhf_lib.attainable.estimates import Array, Best
from rlhf_lib.evaluation.samples import Sample
from rlhf_lib.measure.comparison import group_by_prompt
from rlhf_lib.measure.estimates import Estimate, mean_and_se, of_sums, ratio, with_errors

LOW = 30  # effective sample size below which an estimate leans on too few answers
SMALLEST = 1e-6  # beta that stands for 0
VALUES = ("reward", "judge", "gold")  # what else is known of samples
STEP = 1.02  # ratio of the two betas by which the slope of a number is measured


@dataclass(frozen=True)
class Answers:
    """Answers of the SFT model: scores (P, n), and values (P, n) by name, of the prompts `ids`."""

    ids: list[str]
    scores: Array
    values: dict[str, Array]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Answers:
        """From samples with a `score`, as many of each prompt."""
        grouped = group_by_prompt(samples)

        def table(key: str) -> Array:
            return np.array([[sample[key] for sample in draws] for draws in grouped.values()], dtype=np.float64)

        known = [name for name in VALUES if all(name in sample for sample in samples)]
        return cls([*grouped], table("score"), {name: table(name) for name in known})

    def best(self, beta: float) -> Best:
        """The best policy at a beta; 0 stands for the least that there is."""
        return estimates.best(self.scores, max(beta, SMALLEST), self.values)


def optimum(answers: Answers, beta: float) -> dict[str, Any]:
    """The numbers of the best policy at a beta; `<name>_gain` is what it has more than the SFT model."""
    best, sft = answers.best(beta), {"score": answers.scores, **answers.values}
    reached = {"score": best.reward, **best.values}
    gains = {f"{name}_gain": values - sft[name].mean(axis=1) for name, values in reached.items()}
    gains["objective_gain"] = best.objective - answers.scores.mean(axis=1)
    return {
        **_means({"objective": best.objective, "kl": best.kl, "ess": best.ess, **reached, **gains}),
        "beta": beta,
        "objective_bias": fmean(best.plain - best.objective),
        "low_ess": fmean(best.ess < LOW),
    }


def summary(answers: Answers, policies: Mapping[str, Sequence[Sample]], beta: float) -> dict[str, Any]:
    """metrics/attainable.json: the best policy at `beta`, the SFT model, and what each of `policies` reached."""
    reached = {name: of_policy(answers, samples, beta) for name, samples in policies.items()}
    return {
        "prompts": len(answers.ids),
        "n": answers.scores.shape[1],
        **optimum(answers, beta),
        "sft": of_sft(answers),
        "policies": {name: found for name, found in reached.items() if found},
    }


def doubts(found: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each estimate in what `summary` gives that rests on few answers, or cannot be made."""
    n = found["n"]
    if found["ess"] < LOW:
        yield (
            f"effective sample size {found['ess']:.1f} of {n} answers to a prompt at beta {found['beta']:g}: below "
            f"{LOW}, the estimate leans on few answers; raise attainable.n"
        )
    for name, of_one in found["policies"].items():
        if "beta_at_kl" not in of_one and of_one["kl"] > 0:
            yield f"{name} is {of_one['kl']:.2f} nats from the SFT model, further than {n} answers tell"
        elif of_one.get("ess_at_kl", LOW) < LOW:
            yield f"effective sample size {of_one['ess_at_kl']:.1f} of {n} answers at the KL of {name}: below {LOW}"


def of_sft(answers: Answers) -> dict[str, Any]:
    """The numbers of the SFT model, the best policy of an endless beta, by the same answers."""
    return _means({"score": answers.scores, **answers.values}, axis=1)


def curve(answers: Answers, betas: Sequence[float]) -> list[dict[str, Any]]:
    """The numbers of the best policy by beta, the smallest first."""
    numbers = ("score", "objective", *answers.values)
    names = ("beta", "kl", *numbers, "ess", *(f"{name}_gain" for name in numbers))
    rows = [optimum(answers, beta) for beta in sorted({*betas})]
    keys = [key for name in names for key in (name, f"{name}_se")]
    return [{key: row[key] for key in keys if key in row} for row in rows]


def of_policy(answers: Answers, samples: Sequence[Sample], beta: float) -> dict[str, Any]:
    """What a policy reached, from its samples with a `score`: its objective at `beta` and, at its own KL, its scores,
    beside what the best policy has there. Empty where it lacks samples of one of the prompts."""
    grouped = group_by_prompt(samples)
    if not all(name in grouped for name in answers.ids):
        return {}

    def means(key: str) -> Array:
        return np.array([fmean(sample[key] for sample in grouped[name]) for name in answers.ids])

    kl = means("logprob") - means("ref_logprob")
    known = [name for name in answers.values if all(name in sample for sample in samples)]
    had = {"score": means("score"), **{name: means(name) for name in known}}
    sft, reached = answers.scores.mean(axis=1), had["score"] - beta * kl
    found = {
        **_means({"kl": kl, "objective": reached, **had}),
        **_share("objective_share", reached - sft, answers.best(beta).objective - sft),
    }
    own = estimates.beta_at(answers.scores, float(kl.mean()))
    return found if own is None else found | _at_kl(answers, own, kl, had)


def _at_kl(answers: Answers, beta: float, kl: Array, had: Mapping[str, Array]) -> dict[str, Any]:
    """What the best policy has at the KL of another, whose (P,) numbers are `had`; beta gives that KL."""
    best, (less, more) = answers.best(beta), (answers.best(beta * step) for step in (STEP, 1 / STEP))
    there, sft = {"score": best.objective + beta * kl}, {"score": answers.scores.mean(axis=1)}
    for name in set(had) & set(answers.values):
        slope = (more.values[name] - less.values[name]).mean() / (more.kl - less.kl).mean()
        there[name] = best.values[name] + slope * (kl - best.kl)
        sft[name] = answers.values[name].mean(axis=1)
    found = {
        **{f"{name}_at_kl": values for name, values in there.items()},
        **{f"{name}_gain_at_kl": values - sft[name] for name, values in there.items()},
        **{f"{name}_gap": values - had[name] for name, values in there.items()},
    }
    share = _share("score_share", had["score"] - sft["score"], there["score"] - sft["score"])
    return {**_means(found), **share, "beta_at_kl": beta, "ess_at_kl": fmean(best.ess)}


def _means(values: Mapping[str, Array], axis: int | None = None) -> dict[str, Any]:
    """Means over prompts with their errors, of (P,) values, or of (P, n) over `axis` first."""
    of_prompts = {name: of if axis is None else of.mean(axis=axis) for name, of in values.items()}
    return with_errors({name: mean_and_se(of.tolist()) for name, of in of_prompts.items()})


def _share(name: str, part: Array, whole: Array) -> dict[str, Any]:
    """The ratio of the means of two (P,) values, with its jackknifed error; None where there is nothing to gain."""
    found: Estimate = of_sums([*zip(part, whole, strict=True)], ratio) if whole.mean() > 0 else (None, None)
    return with_errors({name: found})
