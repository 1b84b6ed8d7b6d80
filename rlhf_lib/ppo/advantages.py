"""Advantages without a critic: what a response is worth beside others, as pure functions of a rollout's rewards.

Shapes: B responses, of which the G = num_generations to a prompt lie next to each other; R response positions. The
formulas, the sample standard deviations (over n - 1) and the 1e-4 beside them are those of TRL's GRPOTrainer and
RLOOTrainer.

References
    [Ahmadian 2024] Back to basics: revisiting REINFORCE-style optimization for RLHF, arXiv:2402.14740
    [Shao 2024]     DeepSeekMath: pushing the limits of mathematical reasoning, arXiv:2402.03300
    [Hu 2025]       REINFORCE++: stabilizing critic-free policy optimization, arXiv:2501.03262
    [Liu 2025a]     Understanding R1-zero-like training: a critical perspective (Dr. GRPO), arXiv:2503.20783
    [Liu 2025b]     Tricks or traps? A deep dive into RL for LLM reasoning (Lite PPO), arXiv:2508.08221
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from rlhf_lib.ppo import algos
from rlhf_lib.ppo.params import PPOParams

EPS = 1e-4


def leave_one_out(rewards: Tensor, num_generations: int) -> Tensor:
    """(B,) reward of each response less the mean of the others to its prompt: RLOO [Ahmadian 2024, sec. 3.3]."""
    groups = _groups(rewards, num_generations)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (num_generations - 1)
    return (groups - others).flatten()


def group_mean(rewards: Tensor, num_generations: int) -> Tensor:
    """(B,) reward of each response less the mean of all to its prompt: GRPO [Shao 2024, sec. 4.1], not yet scaled."""
    groups = _groups(rewards, num_generations)
    return (groups - groups.mean(dim=1, keepdim=True)).flatten()


def _groups(rewards: Tensor, num_generations: int) -> Tensor:
    """(B / G, G) rewards, each less that of its prompt's first response. What tells them apart stays; of equal ones
    the mean, such as that of three times 1000.1, would miss them by a rounding, which `scaled` makes an advantage."""
    groups = rewards.view(-1, num_generations)
    return groups - groups[:, :1]


def scaled(
    advantages: Tensor, rewards: Tensor, num_generations: int, by: Literal["none", "running", "group", "batch"]
) -> Tensor:
    """(B,) advantages over the spread of the rewards that they are of.

    by: that of the responses to the same prompt [Shao 2024], or of all responses [Liu 2025b]. none leaves them as they
    are, which favours no prompt for the little spread of its rewards [Liu 2025a]; running has scaled the rewards.
    """
    if by == "group":
        spread = rewards.view(-1, num_generations).std(dim=1).repeat_interleave(num_generations)
    elif by == "batch":
        spread = rewards.std()
    else:
        return advantages
    return advantages / (spread + EPS)


def normalised(advantages: Tensor) -> Tensor:
    """(B,) advantages shifted and scaled to mean 0 and variance 1 over the responses (TRL: normalize_advantages)."""
    return (advantages - advantages.mean()) / (advantages.std() + EPS)


def without_critic(params: PPOParams, rewards: Tensor, mask: Tensor) -> Tensor:
    """(B, R) advantages of the estimator that the params name, from (B, R) rewards of tokens.

    A reinforce advantage is the token's own: the discounted rewards from it on, over the rollout's tokens whitened if
    `whiten_advantages` [Hu 2025]. rloo and grpo give all tokens of a response the same: that of its summed rewards.
    """
    if params.advantage_estimator == "reinforce":
        to_go, _ = algos.gae(rewards, torch.zeros_like(rewards), mask, params.gamma, lam=1.0)
        return algos.whiten(to_go, mask) if params.whiten_advantages else to_go
    totals, copies = rewards.sum(dim=1), params.num_generations
    compare = leave_one_out if params.advantage_estimator == "rloo" else group_mean
    advantages = scaled(compare(totals, copies), totals, copies, params.scale_rewards)
    if params.whiten_advantages:
        advantages = normalised(advantages)
    return advantages.unsqueeze(1) * mask


def equal_groups(scores: Tensor, num_generations: int) -> float:
    """The share of prompts whose responses all have the same score, from which rloo and grpo learn nothing."""
    spread = scores.view(-1, num_generations).std(dim=1)
    return torch.isclose(spread, torch.zeros_like(spread)).float().mean().item()
