"""Rollouts: sampled responses with everything that the PPO update needs of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf_lib.generation import Response
from rlhf_lib.logprobs import Batch, collate
from rlhf_lib.params.ppo import PPOParams
from rlhf_lib.ppo import algos


@dataclass
class Rollout:
    """B prompts with a response each. Tensors are (B, R) on the CPU, 0 where the mask is False."""

    prompts: list[list[int]]
    responses: list[Response]
    scores: Tensor  # (B,) rewards of the whole responses
    mask: Tensor  # bool, True on the responses' tokens
    logprobs: Tensor  # of the policy that sampled
    ref_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    advantages: Tensor
    returns: Tensor

    @classmethod
    def empty(cls, prompts: list[list[int]], responses: list[Response], scores: Sequence[float]) -> Rollout:
        """A rollout whose per-token tensors are still 0."""
        lengths = torch.tensor([len(response.ids) for response in responses])
        mask = torch.arange(int(lengths.max())) < lengths.unsqueeze(1)
        per_token = [torch.zeros(mask.shape) for _ in range(6)]
        return cls(prompts, responses, torch.tensor(scores, dtype=torch.float32), mask, *per_token)

    @property
    def kl(self) -> Tensor:
        """(B,) log(policy / reference) of each response, in nats."""
        return (self.logprobs - self.ref_logprobs).sum(dim=1)

    def batch(self, rows: Sequence[int], pad_id: int, device: torch.device) -> Batch:
        """The tokens of some rows, padded no wider than they need."""
        return collate([self.prompts[i] for i in rows], [self.responses[i].ids for i in rows], pad_id, device)

    def record(self, name: str, rows: Sequence[int], values: Tensor) -> None:
        """Write the (len(rows), R') tensor `values` into rows of the tensor `name`."""
        getattr(self, name)[list(rows), : values.size(1)] = values.float().cpu()

    def estimate_advantages(self, params: PPOParams, kl_coef: float) -> None:
        """Rewards, then advantages and returns, from scores, log-probs and values."""
        finished = torch.tensor([response.finished for response in self.responses])
        scores = algos.missing_eos_penalty(self.scores, finished, params.missing_eos_penalty)
        kl = algos.kl_estimate(self.logprobs, self.ref_logprobs, params.kl_estimator)
        rewards = algos.token_rewards(scores, kl, kl_coef, self.mask)
        self.advantages, self.returns = algos.gae(rewards, self.values, self.mask, params.gamma, params.lam)
        if params.whiten_advantages:
            self.advantages = algos.whiten(self.advantages, self.mask)

    def metrics(self) -> dict[str, float]:
        """What the sampled responses say of the policy: means over responses, or over tokens for the entropy."""
        return {
            "reward": self.scores.mean().item(),
            "kl": self.kl.mean().item(),
            "length": self.mask.sum(dim=1).float().mean().item(),
            "eos_rate": sum(response.finished for response in self.responses) / len(self.responses),
            "entropy": algos.masked_mean(self.entropy, self.mask).item(),
            "explained_variance": algos.explained_variance(self.values, self.returns, self.mask).item(),
        }


def minibatches(permutation: Sequence[int], lengths: Sequence[int], params: PPOParams) -> list[list[list[int]]]:
    """Row indices as minibatches of micro-batches.

    The permutation decides which rows an optimizer step sees; inside a minibatch, micro-batches hold rows of like
    length, so the micro-batch size changes neither the rows of a step nor its gradient.
    """
    size, micro = params.minibatch_size, params.per_device_train_batch_size
    split = []
    for start in range(0, len(permutation), size):
        rows = sorted(permutation[start : start + size], key=lambda i: (lengths[i], i))
        split.append([rows[k : k + micro] for k in range(0, len(rows), micro)])
    return split


def update_inputs(
    rollout: Rollout, minibatch: list[list[int]], pad_id: int, device: torch.device
) -> Iterator[dict[str, Any]]:
    """The inputs of one optimizer step's micro-batches; `num_tokens` is the response tokens of the whole minibatch."""
    num_tokens = int(rollout.mask[[i for rows in minibatch for i in rows]].sum())
    for rows in minibatch:
        batch = rollout.batch(rows, pad_id, device)
        width = batch.response_mask.size(1)
        tensors = {
            name: getattr(rollout, name)[rows, :width].to(device)
            for name in ("logprobs", "values", "advantages", "returns")
        }
        yield {"batch": batch, "num_tokens": num_tokens, **tensors}
