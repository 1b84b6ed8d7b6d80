"""A policy and its critic as one module."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_lib.logprobs import Batch, response_logits, token_logprobs
from rlhf_lib.ppo.algos import entropy
from rlhf_lib.rewards import RewardModel


class PolicyOutput(NamedTuple):
    logprobs: Tensor  # (B, R) of the responses' tokens at the sampling temperature
    values: Tensor  # (B, R) of the states in which those tokens were chosen
    entropy: Tensor  # (B, R) of the distributions they were drawn from, in nats; carries no gradient


class ActorCritic(nn.Module):
    """A causal language model and a critic, which is a head on the policy's own trunk or a separate trunk and head.

    The module stays in eval mode while it trains: with dropout, the log-probs of the update would be those of another
    policy than the one that sampled, and the first ratio would not be 1.
    """

    def __init__(self, policy: PreTrainedModel, critic_trunk: PreTrainedModel | None, value_head: nn.Linear) -> None:
        super().__init__()
        self.policy = policy
        self.critic_trunk = critic_trunk
        self.value_head = value_head
        self._policy_hidden: Tensor | None = None
        if critic_trunk is None:
            # The causal LM's own forward turns hidden states into logits (some scale or cap them), but does not
            # return the last hidden state without keeping those of all layers.
            policy.base_model.register_forward_hook(self._keep_hidden)

    def _keep_hidden(self, module: nn.Module, inputs: tuple[object, ...], output: tuple[Tensor, ...]) -> None:
        self._policy_hidden = output[0]

    def train(self, mode: bool = True) -> ActorCritic:
        return super().train(False)

    def forward(self, batch: Batch, temperature: float) -> PolicyOutput:
        """Log-probs, values and entropy on the responses of a batch; 0 where there is no token."""
        logits = response_logits(self.policy, batch)
        logprobs = token_logprobs(logits, batch.response_ids, temperature)
        with torch.no_grad():
            entropies = entropy(logits / temperature)
        empty = ~batch.response_mask
        values = self._values(batch)
        return PolicyOutput(*(x.masked_fill(empty, 0.0) for x in (logprobs, values, entropies)))

    def _values(self, batch: Batch) -> Tensor:
        hidden = self._policy_hidden
        self._policy_hidden = None
        if self.critic_trunk is not None:
            hidden = self.critic_trunk(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
            ).last_hidden_state
        assert hidden is not None
        states = hidden[:, -batch.response_mask.size(1) - 1 : -1]
        return self.value_head(states.float()).squeeze(-1)


def with_shared_critic(policy: PreTrainedModel) -> ActorCritic:
    """The critic is a linear head on the policy's trunk, zero at first."""
    head = nn.Linear(policy.config.get_text_config().hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return ActorCritic(policy, None, head.to(policy.device))


def with_separate_critic(policy: PreTrainedModel, reward: RewardModel) -> ActorCritic:
    """The critic is the reward model's trunk and head, rescaled to normalised rewards.

    It reads the policy's tokens, so the reward model must have the policy's tokenizer.
    """
    old_head = reward.model.score
    head = nn.Linear(old_head.in_features, 1).to(policy.device)
    with torch.no_grad():
        head.weight.copy_(old_head.weight / reward.std)
        head.bias.fill_(-reward.mean / reward.std)
    return ActorCritic(policy, reward.model.base_model, head)
