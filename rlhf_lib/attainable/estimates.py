"""The best policy for E[r] - beta KL(policy || SFT), from answers of the SFT model alone. Pure functions.

The policy that no other can better, and the objective that it reaches, are known:

    best(y|x) = sft(y|x) exp(r(x, y) / beta) / Z(x)        Z(x) = E_sft exp(r / beta)
    E_best[r] - beta KL(best || sft) = beta log Z(x)        KL(best || sft) = E_best[r] / beta - log Z(x)

[Korbak 2022, arXiv:2205.11275; Rafailov 2023, arXiv:2305.18290, appendix A.1]. With n answers of
the SFT model to a prompt, Z is their mean of exp(r / beta), and the best policy weighs them by softmax(r / beta): means
under it are self-normalised importance sampling [Owen 2013, Monte Carlo theory, methods and examples, section 9.2].

The logarithm of a mean falls short of that of the expectation: by beta (n / ess - 1) / 2n at first order, `ess` being
1 / sum of squared weights [Nowozin 2018, Debiasing evidence approximations, proposition 1]. The jackknife takes that
order out of it, and out of every weighted mean [Quenouille 1956; Nowozin 2018, section 3]. As beta goes to 0 it stays
finite: what it adds is then (n - 1) / n times the distance between the best reward and the second.

Shapes: P prompts, n answers to each. Rewards and betas have one unit; KL is in nats per response.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

BISECTIONS = 60
WIDEST = 1e4  # a beta of so many spreads of the reward gives the SFT model; one of as small a part, the best of n


def weights(rewards: Array, beta: float, prior: Array | None = None) -> Array:
    """(P, n) share of each answer in the best policy; each row sums to 1. beta of 0: the best answers share alike.

    prior: (P, n) probabilities of the answers under the SFT model, where they are all that there are; by default each
    is one of n draws.
    """
    powers = _powers(rewards, beta) * (1.0 if prior is None else prior)
    return powers / powers.sum(axis=1, keepdims=True)


def _powers(rewards: Array, beta: float) -> Array:
    """exp(r / beta), as shares of the greatest of each row."""
    below = rewards - rewards.max(axis=1, keepdims=True)
    return np.exp(below / beta) if beta > 0 else (below == 0).astype(np.float64)


def objective(rewards: Array, beta: float, prior: Array | None = None) -> Array:
    """(P,) beta log Z, uncorrected; of the best policy it is the reward less beta times the KL. `prior` as above."""
    best = rewards.max(axis=1)
    if beta == 0:
        return best
    gains = np.expm1((rewards - best[:, None]) / beta)  # with log1p exact for any beta, however large
    mean = gains.mean(axis=1) if prior is None else (prior * gains).sum(axis=1)
    return best + beta * np.log1p(mean)


def kl(rewards: Array, beta: float, prior: Array | None = None) -> Array:
    """(P,) KL of the best policy to the SFT model, uncorrected: the sum of w log(w / prior)."""
    share = weights(rewards, beta, prior)
    base = 1 / rewards.shape[1] if prior is None else prior
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = share * np.log(share / base)
    return np.where(share > 0, terms, 0.0).sum(axis=1)


def effective_sample_size(share: Array) -> Array:
    """(P,) 1 / sum of squared weights [Kong 1992]: how many of the n answers the weighted means rest on."""
    return 1 / np.square(share).sum(axis=1)


@dataclass(frozen=True)
class Best:
    """The best policy at a beta, prompt by prompt: (P,) each, jackknifed but for `plain`, the objective before that.

    values: means of what else is known of the answers, by name.
    """

    beta: float
    objective: Array
    plain: Array
    reward: Array
    kl: Array
    ess: Array
    values: dict[str, Array]


def best(rewards: Array, beta: float, values: Mapping[str, Array] | None = None) -> Best:
    """The best policy at `beta`, above 0, from (P, n) rewards of the SFT model's answers, n at least 2.

    values: (P, n) each, to be averaged under it.
    """
    share, plain = weights(rewards, beta), objective(rewards, beta)
    top, rest = _apart(rewards)
    corrected = _jackknife(plain, _objectives_without_each(rewards, beta, top, rest))
    share_of_rest = weights(rest, beta)

    def mean(of: Array) -> Array:
        whole = (share * of).sum(axis=1)
        # a share is at most half, but for the best answer's: the division loses nothing
        without = (whole[:, None] - share * of) / np.where(top, 1.0, 1 - share)
        without[top] = (share_of_rest * of[~top].reshape(rest.shape)).sum(axis=1)
        return _jackknife(whole, without)

    reward = mean(rewards)
    means = {name: mean(of) for name, of in (values or {}).items()}
    ess = effective_sample_size(share)
    return Best(beta, corrected, plain, reward, (reward - corrected) / beta, ess, means)


def _apart(rewards: Array) -> tuple[Mask, Array]:
    """(P, n) True at the first best answer of each row, and (P, n - 1) rewards of the others."""
    top = np.zeros(rewards.shape, dtype=bool)
    top[np.arange(len(rewards)), rewards.argmax(axis=1)] = True
    return top, rewards[~top].reshape(len(rewards), -1)


def _objectives_without_each(rewards: Array, beta: float, top: Mask, rest: Array) -> Array:
    """(P, n) the objective of the other n - 1 answers. Without the best, the others' powers could all be 0."""
    powers = np.where(top, 0.0, _powers(rewards, beta))
    others = powers.sum(axis=1, keepdims=True) - powers + 1  # the best has 1
    found = rewards.max(axis=1, keepdims=True) + beta * np.log(others / (rewards.shape[1] - 1))
    found[top] = objective(rest, beta)
    return found


def _jackknife(whole: Array, without: Array) -> Array:
    """(P,) n times the statistic less n - 1 times its mean over the (P, n) values without each answer in turn."""
    n = without.shape[1]
    return n * whole - (n - 1) * without.mean(axis=1)


def beta_at(rewards: Array, distance: float) -> float | None:
    """The beta whose best policy is, on average over prompts, `distance` nats from the SFT model.

    None where that is not above 0, or further than n answers tell: to take the best of n is log n nats from them.
    """
    spread = float(rewards.std(axis=1).mean())
    if distance <= 0 or spread == 0:
        return None
    low, high = np.log(spread / WIDEST), np.log(spread * WIDEST)
    if not _mean_kl(rewards, high) < distance < _mean_kl(rewards, low):
        return None
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean_kl(rewards, middle) > distance else (low, middle)
    return float(np.exp((low + high) / 2))


def _mean_kl(rewards: Array, log_beta: float) -> float:
    return float(best(rewards, float(np.exp(log_beta))).kl.mean())
