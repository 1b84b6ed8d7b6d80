"""What PPO learns from, one number a response: its reward, shaped, less the penalty on its KL to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf_lib.models.logprobs import Response
from rlhf_lib.ppo import algos
from rlhf_lib.ppo.params import PPOParams

if TYPE_CHECKING:
    from rlhf_lib.ppo.sampler import Answers
    from rlhf_lib.ppo.state import PPOState


def shaped(params: PPOParams, rewards: Tensor, responses: Sequence[Response], std: float) -> Tensor:
    """(B,) scores from (B,) rewards: over `std` if `scale_rewards` is running, clipped, and less the penalties."""
    if params.scale_rewards == "running":
        rewards = rewards / std
    if params.reward_clip is not None:
        rewards = rewards.clamp(-params.reward_clip, params.reward_clip)
    rewards = rewards - params.length_penalty * torch.tensor([float(len(r.ids)) for r in responses])
    finished = torch.tensor([response.finished for response in responses])
    return algos.penalise_missing_eos(rewards, finished, params.missing_eos_penalty, params.missing_eos_replaces)


def kl_penalty(params: PPOParams, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """What `kl_coef` weighs of each token: the estimate that the params name, clipped. Any shape, nats."""
    kl = algos.kl_estimate(logprobs, ref_logprobs, params.kl_estimator)
    return kl if params.kl_clip is None else kl.clamp(-params.kl_clip, params.kl_clip)


def objective(params: PPOParams, state: PPOState, answers: Answers) -> float:
    """The mean over answers of what is learnt from: the scores, less `kl_coef` times the tokens' KL penalties.

    Evaluations are compared with each other, so what moves while a run goes on stays as it was at first: `kl_coef`,
    where it is adapted, and the spread by which `scale_rewards` divides, which is that of the first evaluation, of the
    SFT model (kept in `state`). Discounting and the loss's other terms are left out: they say how to learn.
    """
    rewards = torch.tensor(answers.rewards.total, dtype=torch.float64)
    if state.objective_std is None:
        moments = algos.RunningMoments()
        moments.update(rewards)
        state.objective_std = moments.std
    scores = shaped(params, rewards, answers.responses, state.objective_std)
    tokens = zip(answers.logprobs, answers.ref_logprobs, strict=True)
    kl = torch.stack([kl_penalty(params, *of_answer).sum() for of_answer in tokens])
    return (scores - params.kl_coef * kl).mean().item()
