"""Rollouts: sampled responses with everything that the PPO update needs of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf_lib.common.chunks import chunks
from rlhf_lib.models.logprobs import Response, by_length
from rlhf_lib.ppo import advantages, algos
from rlhf_lib.ppo.model import Batches
from rlhf_lib.ppo.objective import kl_penalty
from rlhf_lib.ppo.params import PPOParams
from rlhf_lib.ppo.state import PPOState

Micro = Sequence[int]  # the rows of one forward pass
Minibatch = Sequence[Micro]  # the rows of one optimizer step


@dataclass
class Rollout:
    """B prompts with a response each. Tensors are (B, R) on the CPU, 0 where the mask is False."""

    prompts: list[list[int]]
    responses: list[Response]
    scores: Tensor  # (B,) what the update learns from: rewards of the whole responses, with penalties
    mask: Tensor  # bool, True on the responses' tokens
    logprobs: Tensor  # of the policy that sampled
    ref_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    advantages: Tensor
    returns: Tensor

    @classmethod
    def empty(cls, prompts: list[list[int]], responses: list[Response], scores: Tensor) -> Rollout:
        """A rollout whose per-token tensors are still 0."""
        lengths = torch.tensor([len(response.ids) for response in responses])
        mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        per_token = [torch.zeros(mask.shape) for _ in range(6)]
        return cls(prompts, responses, scores, mask, *per_token)

    @property
    def kl(self) -> Tensor:
        """(B,) log(policy / reference) of each response, in nats."""
        return (self.logprobs - self.ref_logprobs).sum(dim=1)

    @property
    def response_lengths(self) -> Tensor:
        """(B, R) at each token, how many its response has."""
        return self.mask.sum(dim=1, keepdim=True) * self.mask

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, prompt and response."""
        return [len(p) + len(r.ids) for p, r in zip(self.prompts, self.responses, strict=True)]

    def record(self, name: str, rows: Micro, flat: Tensor) -> None:
        """Write what a model said of the response tokens of some rows, (n,) on the CPU, into the tensor `name`."""
        part = torch.zeros(len(rows), self.mask.size(1))
        part[self.mask[rows]] = flat
        getattr(self, name)[rows] = part

    def flat(self, name: str, rows: Micro) -> Tensor:
        """(n,) of the tensor `name`, of the response tokens of some rows."""
        return getattr(self, name)[rows][self.mask[rows]]

    def estimate_advantages(self, params: PPOParams, kl_coef: float) -> None:
        """Rewards, then advantages and, with a critic, returns, from scores, log-probs and values."""
        kl = kl_penalty(params, self.logprobs, self.ref_logprobs)
        rewards = algos.token_rewards(self.scores, kl, kl_coef if params.kl_in == "reward" else 0.0, self.mask)
        if params.whiten_rewards:
            rewards = algos.whiten(rewards, self.mask, shift_mean=False)
        if not params.has_critic:
            self.advantages = advantages.without_critic(params, rewards, self.mask)
            return
        self.advantages, self.returns = algos.gae(rewards, self.values, self.mask, params.gamma, params.lam)
        if params.whiten_advantages:
            self.advantages = algos.whiten(self.advantages, self.mask)

    def metrics(self, params: PPOParams) -> dict[str, float]:
        """What the sampled responses say of the policy: means over responses, or over tokens for the entropy."""
        measured = {
            "score": self.scores.mean().item(),
            "kl": self.kl.mean().item(),
            "length": self.mask.sum(dim=1).float().mean().item(),
            "eos_rate": sum(response.finished for response in self.responses) / len(self.responses),
            "entropy": algos.masked_mean(self.entropy, self.mask).item(),
        }
        if params.has_critic:
            measured["returns"] = algos.masked_mean(self.returns, self.mask).item()
            explained = algos.explained_variance(self.values, self.returns, self.mask)
            measured["explained_variance"] = explained.item()
        if params.compares_groups:
            measured["frac_reward_zero_std"] = advantages.equal_groups(self.scores, params.num_generations)
        return measured


def minibatches(permutation: Sequence[int], lengths: Sequence[int], params: PPOParams) -> list[Minibatch]:
    """Row indices as minibatches of micro-batches.

    The permutation decides which rows an optimizer step sees; inside a minibatch, micro-batches hold the answers to a
    prompt, and rows of like length, so the micro-batch size changes neither the rows of a step nor its gradient.
    """
    split: list[Minibatch] = []
    for minibatch in chunks(permutation, params.minibatch_size):
        rows = sorted(minibatch)
        prompts = [row // params.num_generations for row in rows]
        micros = by_length([lengths[row] for row in rows], params.per_device_train_batch_size, prompts)
        split.append([[rows[place] for place in places] for places in micros])
    return split


def update_inputs(
    rollout: Rollout,
    minibatch: Minibatch,
    collate: Callable[[Sequence[list[int]], Sequence[Response], int], Batches],
    pad_id: int,
    part: slice = slice(None),
) -> Iterator[dict[str, Any]]:
    """The inputs of one optimizer step's micro-batches, or of one process's `part` of them.

    `collate` is that of the actor-critic; `num_tokens` is the response tokens of the whole minibatch.
    """
    num_tokens = int(rollout.mask[[i for rows in minibatch for i in rows]].sum())
    for rows in minibatch[part]:
        batches = collate([rollout.prompts[i] for i in rows], [rollout.responses[i] for i in rows], pad_id)
        names = ("logprobs", "ref_logprobs", "values", "advantages", "returns", "response_lengths")
        tensors = torch.stack([rollout.flat(name, rows) for name in names]).to(batches.policy.token_ids.device)
        yield {"batches": batches, "num_tokens": num_tokens, **dict(zip(names, tensors, strict=True))}


class RolloutLoader:
    """The trainer's data: rollouts collected when they are asked for, as the micro-batches of their updates.

    It is not handed to accelerate, whose loader reads one batch ahead: the next rollout would be sampled before the
    last optimizer step on this one.

    updates: collects the rollout of a number and gives its micro-batches. micro_batches: to an optimizer step.
    """

    def __init__(
        self,
        params: PPOParams,
        ppo_state: PPOState,
        updates: Callable[[int], Iterator[dict[str, Any]]],
        micro_batches: int,
    ) -> None:
        self.params, self.ppo_state, self.updates, self.micro_batches = params, ppo_state, updates, micro_batches

    def __len__(self) -> int:
        return self.params.total_rollouts * self.params.steps_per_rollout * self.micro_batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while not self.ppo_state.stopped and self.ppo_state.rollouts_done < self.params.total_rollouts:
            yield from self.updates(self.ppo_state.rollouts_done)
