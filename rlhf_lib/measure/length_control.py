"""Win rates controlled for length: what they would be if the two answers of each pair were equally long.

The regression of AlpacaEval 2 [Dubois 2024, arXiv:2404.04475]: the log-odds of a win are

    theta + phi * tanh(d / s),

d being the characters by which the answer is longer, and s the standard deviation of d over the pairs. The controlled
win rate is what that predicts for d = 0: sigmoid(theta). Differences from the published one:

- There is no term for an instruction's difficulty: it is estimated there from a leaderboard's many models, and of one
  pair of models it is the same as what is to be explained. (Theirs without it is `length_controlled_minimal`.)
- The penalty is on phi alone, that of a normal prior with a standard deviation of `PRIOR`. Theirs is an L1 penalty on
  all coefficients, with a strength that is cross-validated. So theta is free: without a difference in length, or
  without an influence of it, the controlled win rate is the raw one.
- Theirs also learns, with less weight, from a baseline model that was told to be brief or verbose. Without that, phi
  and the quality of answers that are nearly all shorter, or longer, are hard to tell apart, and the error says so.
- The error is that of the fit over prompts. Theirs is the spread of the predictions, which would be 0 here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlhf_lib.evaluation.samples import Sample
from rlhf_lib.measure.comparison import Opponents, by_prompt, same_draw, wins
from rlhf_lib.measure.estimates import Estimate, share_and_se

PRIOR = 5.0  # of phi: weak, since a phi of 5 turns even odds into 45 to 1 for the longer answer
STEPS = 100
PRECISION = 1e-10  # of the coefficients

Array = NDArray[np.float64]


class Match(NamedTuple):
    """An answer against another to the same prompt."""

    prompt: str
    win: float  # 1 for a win, 0 for a loss; a tie is half
    longer: float  # characters that the answer has more than the other
    weight: float = 1.0  # among the matches of its prompt; prompts weigh the same


def matches(samples: Sequence[Sample], opponents: Opponents, weights: Sequence[float] | None = None) -> list[Match]:
    """Each of `samples` against each of its opponents, as the judge has it; weights: of the samples."""
    return [
        Match(
            sample["id"],
            wins(sample, other, "judge"),
            len(sample["response"]) - len(other["response"]),
            weight / len(others),
        )
        for sample, weight in zip(samples, weights or [1.0] * len(samples), strict=True)
        if (others := opponents(sample))
        for other in others
    ]


def win_rates(one: Sequence[Sample], other: Iterable[Sample]) -> tuple[Estimate, Estimate]:
    """The judge's win rate of `one` over the samples of `other` that have the same prompt and draw, and the controlled
    one."""
    compared = matches(one, same_draw(other))
    won = by_prompt([{"id": match.prompt, "win": match.win} for match in compared], itemgetter("win"))
    return share_and_se(won), controlled(compared)


def controlled(matches: Sequence[Match]) -> Estimate:
    """The length-controlled win rate, 0 to 1, and its standard error over prompts, which may have several pairs.

    The error is the jackknife's (`estimates`), with one step of Newton's method for the fit without each prompt, and
    with the prior's own spread: where hardly an answer is shorter, theta is known no better than phi is beforehand, and
    the error is large. Of pairs of equal length it is the textbook error of the mean.

    Where all pairs are won, or all lost, there is nothing that length could explain: it is the raw win rate.

    (None, None) for fewer than two prompts, and where lengths alone tell the wins from the losses, so that any theta
    fits as well.
    """
    _, prompts = np.unique([match.prompt for match in matches], return_inverse=True)
    if len(matches) == 0 or prompts.max() == 0:
        return None, None
    won, longer, weight = np.array([match[1:] for match in matches], dtype=np.float64).T
    kept = weight > 0
    won, longer, prompts = won[kept], longer[kept], prompts[kept]
    weight = weight[kept] / np.bincount(prompts, weight[kept])[prompts]
    if won.min() == won.max() and won[0] in (0, 1):
        return share_and_se([float(won[0])] * int(prompts.max() + 1))
    if _separated(won, longer):
        return None, None
    return _predicted(won, _features(longer, weight), weight, prompts)


def _separated(won: Array, longer: Array) -> bool:
    """Whether the answers that win are all longer than those that lose, or all shorter, wherever the border lies.

    Ties belong to both. Where both meet in one length, its odds are known, and theta is if that is a difference of 0.
    """
    wins, losses = longer[won > 0], longer[won < 1]
    borders = ((losses.max(), wins.min()), (wins.max(), losses.min()))
    return any(low < high or low == high != 0 for low, high in borders)


def _features(longer: Array, weight: Array) -> Array:
    """(pairs, 2): 1, and tanh of the difference in length in its standard deviations."""
    mean = weight @ longer / weight.sum()
    deviation = math.sqrt(weight @ (longer - mean) ** 2 / (weight.sum() - 1))
    scaled = np.tanh(longer / deviation) if deviation > 0 else np.sign(longer)
    return np.stack([np.ones_like(longer), scaled], axis=1)


def _predicted(won: Array, features: Array, weight: Array, prompts: NDArray[np.int64]) -> Estimate:
    prior = np.diag([0.0, PRIOR**-2])
    coefficients = _fit(won, features, weight, prior)
    rates = _sigmoid(features @ coefficients)
    curvature = (features.T * (weight * rates * (1 - rates))) @ features + prior
    scores = _sums((weight * (won - rates))[:, None] * features, prompts)
    parts = _sums((weight * rates * (1 - rates))[:, None, None] * features[:, :, None] * features[:, None], prompts)
    shifts = np.linalg.solve(curvature - parts, scores[..., None])[:, 0, 0]  # of theta without each prompt in turn
    inverse = np.linalg.inv(curvature)
    count = len(shifts)
    variance = (count - 1) / count * (shifts @ shifts) + (inverse @ prior @ inverse)[0, 0]
    rate = float(_sigmoid(coefficients[:1])[0])
    return rate, rate * (1 - rate) * math.sqrt(variance)


def _sums(values: Array, prompts: NDArray[np.int64]) -> Array:
    """(prompts, ...) the sums of `values`, (pairs, ...), by prompt."""
    sums = np.zeros((prompts.max() + 1, *values.shape[1:]))
    np.add.at(sums, prompts, values)
    return sums


def _fit(won: Array, features: Array, weight: Array, prior: Array) -> Array:
    """(2,) the coefficients of the greatest penalised likelihood, by Newton's method with halved steps.

    It is concave, and has a maximum, since not all pairs are won, and not all lost.
    """

    def likelihood(coefficients: Array) -> float:
        odds = features @ coefficients
        return float(weight @ (won * odds - np.logaddexp(0, odds)) - coefficients @ prior @ coefficients / 2)

    mean = weight @ won / weight.sum()
    found = np.array([math.log(mean / (1 - mean)), 0.0])
    for _ in range(STEPS):
        rates = _sigmoid(features @ found)
        slope = features.T @ (weight * (won - rates)) - prior @ found
        curvature = (features.T * (weight * rates * (1 - rates))) @ features + prior
        step = np.linalg.solve(curvature, slope)
        reached = likelihood(found)
        while likelihood(found + step) < reached and np.abs(step).max() > PRECISION:
            step = step / 2
        found = found + step
        if np.abs(step).max() <= PRECISION:
            break
    return found


def _sigmoid(odds: Array) -> Array:
    return np.exp(-np.logaddexp(0, -odds))
