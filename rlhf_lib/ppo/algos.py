"""The mathematics of PPO for language models: pure functions of tensors.

Shapes: B rows, R response positions (padded on the right). `mask` is (B, R) bool, True on a response's tokens.
Per-token tensors are 0 where the mask is False.

References
    [Schulman 2015] High-dimensional continuous control using generalized advantage estimation, arXiv:1506.02438
    [Schulman 2017] Proximal policy optimization algorithms, arXiv:1707.06347
    [Schulman 2020] Approximating KL divergence, joschu.net/blog/kl-approx.html
    [Ziegler 2019]  Fine-tuning language models from human preferences, arXiv:1909.08593
    [Ye 2020]       Mastering complex control in MOBA games with deep reinforcement learning, arXiv:1912.09729
    [Ouyang 2022]   Training language models to follow instructions with human feedback, arXiv:2203.02155
    [Shao 2024]     DeepSeekMath: pushing the limits of mathematical reasoning, arXiv:2402.03300
    [Yu 2025]       DAPO: an open-source LLM reinforcement learning system at scale, arXiv:2503.14476
    [Liu 2025]      Understanding R1-zero-like training: a critical perspective (Dr. GRPO), arXiv:2503.20783
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3"]
LossAggregation = Literal["token", "sequence", "constant"]


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, estimator: KLEstimator = "k1") -> Tensor:
    """Per-token estimate of KL(policy || reference) in nats from samples of the policy [Schulman 2020].

    With r = reference / policy: k1 = -log r (unbiased, can be negative), k2 = (log r)^2 / 2 (biased, never negative),
    k3 = r - 1 - log r (unbiased, never negative). Nothing is clamped: that would bias k1. Any shape.
    """
    log_ratio = ref_logprobs - logprobs
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    return log_ratio.exp() - 1 - log_ratio


def token_rewards(scores: Tensor, kl: Tensor, kl_coef: float, mask: Tensor) -> Tensor:
    """(B, R) rewards: -kl_coef * kl on every token, and the score on the last one [Ziegler 2019, eq. 2].

    `scores` is (B,), `kl` is (B, R). The last token is the EOS where the row has one.
    """
    rewards = (-kl_coef * kl).masked_fill(~mask, 0.0)
    last = mask.sum(dim=1) - 1
    rewards[torch.arange(len(scores)), last] += scores
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation [Schulman 2015, eq. 11-16]: (advantages, returns), both (B, R).

        delta_t = r_t + gamma V_{t+1} - V_t        A_t = delta_t + gamma lam A_{t+1}        return_t = A_t + V_t

    A response is an episode that ends after its last token: V and A are 0 from there on, so nothing flows back
    from the padding.
    """
    values = values.masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.size(1))):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = (delta + gamma * lam * next_advantage).masked_fill(~mask[:, t], 0.0)
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    return advantages, (advantages + values).masked_fill(~mask, 0.0)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Scalar mean of `x` over the tokens of the mask."""
    return x.masked_fill(~mask, 0.0).sum() / mask.sum()


def whiten(x: Tensor, mask: Tensor, shift_mean: bool = True, eps: float = 1e-8) -> Tensor:
    """`x` scaled to variance 1 over all tokens of the mask, and shifted to mean 0 if `shift_mean`; 0 elsewhere.

    What is the same for all tokens, and is not shifted, stays as it is: `eps` alone would make it 10,000 times as much.
    """
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean).square(), mask)
    if shift_mean:
        whitened = (x - mean) / (variance + eps).sqrt()
    else:
        whitened = torch.where(variance > eps, x / (variance + eps).sqrt(), x)
    return whitened.masked_fill(~mask, 0.0)


class PolicyLoss(NamedTuple):
    """Of each token, (n,)."""

    loss: Tensor
    clipped: Tensor  # bool, True where the ratio's clip or the bound on negative advantages decides the loss
    ratio: Tensor  # policy / old policy


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    cliprange: float,
    cliprange_high: float | None = None,
    dual_clip: float | None = None,
) -> PolicyLoss:
    """Per-token clipped surrogate loss [Schulman 2017, eq. 7], negated for descent. Tensors of one shape, any.

    The ratio is clipped to 1 - cliprange .. 1 + cliprange_high (by default, cliprange). `dual_clip` bounds the loss
    where the advantage is negative to -dual_clip A [Ye 2020, eq. 6]: there the ratio would else count without limit.
    """
    high = cliprange if cliprange_high is None else cliprange_high
    ratio = (logprobs - old_logprobs).exp()
    unclipped = -advantages * ratio
    loss = torch.maximum(unclipped, -advantages * ratio.clamp(1 - cliprange, 1 + high))
    if dual_clip is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
    return PolicyLoss(loss, loss != unclipped, ratio)


def aggregated(
    loss: Tensor, aggregation: LossAggregation, num_tokens: int, lengths: Tensor, num_responses: int, longest: int
) -> Tensor:
    """Scalar share of some tokens' (n,) losses in the loss of a minibatch of `num_tokens` in `num_responses`.

    token: the mean over all tokens, so that a long response weighs more [Yu 2025; TRL: dapo]. sequence: the mean over
    responses of the mean over the tokens of each, whose `lengths` (n,) are given [Shao 2024; TRL: grpo]. constant: the
    sum over `longest` tokens a response, so that a token weighs the same in any response [Liu 2025; TRL: dr_grpo].
    """
    if aggregation == "token":
        return loss.sum() / num_tokens
    if aggregation == "sequence":
        return (loss / lengths).sum() / num_responses
    return loss.sum() / (num_responses * longest)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, cliprange_value: float | None) -> Tensor:
    """Per-token value loss, half the squared error; with a clip range, the larger of it and the error of the value
    kept within that range of the old one (as in the code of [Schulman 2017]). All tensors (B, R)."""
    error = (values - returns).square()
    if cliprange_value is not None:
        near_old = old_values + (values - old_values).clamp(-cliprange_value, cliprange_value)
        error = torch.maximum(error, (near_old - returns).square())
    return error / 2


def penalise_missing_eos(scores: Tensor, finished: Tensor, penalty: float | None, replace: bool = False) -> Tensor:
    """(B,) scores, where a response was cut before its end less `penalty`, or, with `replace`, -`penalty` instead.

    `finished` is (B,) bool. To subtract keeps apart the better of two cut responses; to replace does not let a high
    reward pay for the cut [Ouyang 2022 and TRL subtract; arXiv:2403.17031 replaces].
    """
    if penalty is None:
        return scores
    cut = torch.full_like(scores, -penalty) if replace else scores - penalty
    return torch.where(finished, scores, cut)


@dataclass
class RunningMoments:
    """Mean and variance of all the numbers seen so far [Chan 1983, parallel variance]."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # of the distances from the mean, summed

    def update(self, x: Tensor) -> None:
        """Take in the numbers of `x`."""
        n, mean = x.numel(), x.double().mean().item()
        total, delta = self.count + n, mean - self.mean
        self.squares += (x.double() - mean).square().sum().item() + delta**2 * self.count * n / total
        self.mean += delta * n / total
        self.count = total

    @property
    def std(self) -> float:
        """Standard deviation (of the population); 1 before there are two numbers, or while all are the same.

        The mean of numbers that are the same, such as 0.1, may miss them by a rounding: that is no spread.
        """
        std = (self.squares / self.count) ** 0.5 if self.count > 1 else 0.0
        return std if std > 1e-12 * abs(self.mean) else 1.0


def adapt_kl_coef(kl_coef: float, kl: float, target: float, horizon: float, rows: int) -> float:
    """The KL coefficient after `rows` responses of mean `kl` (nats per response) [Ziegler 2019, sec. 2.2].

    e = clip(kl / target - 1, -0.2, 0.2)        kl_coef <- kl_coef (1 + e rows / horizon)
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * rows / horizon)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Scalar 1 - Var(returns - values) / Var(returns) over the mask: 1 for a perfect critic, 0 for a constant one.

    NaN where all returns are the same, but for a rounding: there is nothing to explain.
    """
    residual, actual = (returns - values)[mask], returns[mask]
    rounding = 1e-6 * torch.maximum(actual.abs().max(), values[mask].abs().max())
    explained = 1 - residual.var(correction=0) / actual.var(correction=0)
    return explained.masked_fill(actual.std(correction=0) <= rounding, torch.nan)
