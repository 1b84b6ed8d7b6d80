"""A policy and its critic as one module, and the reference from which the policy's KL is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from peft import LoraConfig, PeftModel
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models.attention import takes_packing
from rlhf_lib.models.forward import trunk
from rlhf_lib.models.heads import in_fp32
from rlhf_lib.models.layers import base_model, blocks
from rlhf_lib.models.loading import context_length
from rlhf_lib.models.logprobs import Batch, Distribution, Response, collate, response_distribution, response_logprobs
from rlhf_lib.scoring.reward_model import RewardModel
from rlhf_lib.training.dropout import disable_dropout
from rlhf_lib.training.weights import Model, hold_frozen, with_lora

# A context in which the reference can be called.
Reference: TypeAlias = Callable[[], AbstractContextManager[Model]]


@dataclass(frozen=True)
class Batches:
    """The same rows as policy and critic read them: end to end or padded, as each one's architecture takes them."""

    policy: Batch
    critic: Batch


class PolicyOutput(NamedTuple):
    """Of the n response tokens of a batch, each (n,)."""

    logprobs: Tensor  # under the distribution that the tokens are sampled from
    values: Tensor | None  # of the states in which the tokens were chosen; None without a critic
    entropy: Tensor  # of the distributions that they were drawn from, in nats
    ptx_logprobs: Tensor | None = None  # of a second batch, under the model's own distribution


class ActorCritic(nn.Module):
    """A causal language model and a critic, which is a head on the policy's own trunk or a separate trunk and head;
    without a value head there is none.

    The module stays in eval mode while it trains: with dropout, the log-probs of the update would be those of another
    policy than the one that sampled, and the first ratio would not be 1.
    """

    def __init__(self, policy: Model, critic_trunk: Model | None, value_head: nn.Linear | None) -> None:
        super().__init__()
        self.policy = policy
        self.critic_trunk = critic_trunk
        self.value_head = None if value_head is None else in_fp32(value_head)

    def train(self, mode: bool = True) -> ActorCritic:
        super().train(False)
        for layer in self.modules():
            if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
                layer.training = mode  # else it keeps its activations
        return self

    def checkpoint_activations(self) -> None:
        """Let the layers compute their activations again in the backward pass instead of keeping them; a
        `ParamsError` where an architecture cannot."""
        for model in self.trunks:
            inner = base_model(model)
            if not all(isinstance(block, GradientCheckpointingLayer) for block in blocks(inner)):
                raise ParamsError(
                    f"params.yaml: compute.gradient_checkpointing: a {inner.config.model_type} keeps its activations; "
                    "set it to false, and lower ppo.per_device_train_batch_size"
                )
            disable_dropout(inner)
            inner.activation_checkpointing_enable({"use_reentrant": False})

    @property
    def trunks(self) -> list[Model]:
        """The policy, and the critic's trunk where it has one of its own."""
        return [self.policy, *([] if self.critic_trunk is None else [self.critic_trunk])]

    @property
    def _no_split_modules(self) -> set[str]:
        """The classes of the layers, as transformers' models name theirs: FSDP2 shards layer by layer."""
        return {type(block).__name__ for model in self.trunks for block in blocks(base_model(model))}

    @property
    def context_length(self) -> int | None:
        """The most tokens that both policy and critic can attend to, where their configs say so."""
        return min((length for length in map(context_length, self.trunks) if length is not None), default=None)

    def collate(self, prompts: Sequence[list[int]], responses: Sequence[Response], pad_id: int) -> Batches:
        """Token lists as the batches of a forward pass. No response is empty."""
        batch = collate(self.policy, prompts, responses, pad_id)
        critic = self.policy if self.critic_trunk is None else self.critic_trunk
        if takes_packing(critic) == takes_packing(self.policy):
            return Batches(batch, batch)
        return Batches(batch, collate(critic, prompts, responses, pad_id))

    def forward(self, batches: Batches, distribution: Distribution, ptx_batch: Batch | None = None) -> PolicyOutput:
        """Log-probs, values and entropies of a batch's response tokens."""
        batch = batches.policy
        keeping: AbstractContextManager[list[Tensor]] = nullcontext([])
        if self.value_head is not None:
            keeping = last_hidden_state(self.policy)
        with keeping as kept:
            logprobs, entropy = response_distribution(self.policy, batch, distribution)
        values = None if self.value_head is None else self._values(self.value_head, kept, batches.critic)
        ptx_logprobs = None if ptx_batch is None else response_logprobs(self.policy, ptx_batch)
        return PolicyOutput(logprobs, values, entropy, ptx_logprobs)

    def _values(self, head: nn.Linear, of_policy: list[Tensor], batch: Batch) -> Tensor:
        hidden = of_policy[0] if self.critic_trunk is None else self.critic_trunk(**batch.inputs).last_hidden_state
        values = head(hidden.flatten(0, 1).index_select(0, batch.places))
        return values.squeeze(-1).clone()  # FSDP warns of views that a model returns

    def critic_parameters(self) -> set[nn.Parameter]:
        """What only the critic trains."""
        parts = [part for part in (self.critic_trunk, self.value_head) if part is not None]
        return {parameter for part in parts for parameter in part.parameters()}


@contextmanager
def last_hidden_state(model: Model) -> Iterator[list[Tensor]]:
    """Within the context, a causal language model's forward pass puts its last hidden state (B, T, D) into the list.

    The model's own forward turns it into logits (some scale or cap them), but does not return it without keeping
    those of all layers.
    """
    kept: list[Tensor] = []
    hook = trunk(base_model(model)).register_forward_hook(lambda module, inputs, output: kept.append(output[0]))
    try:
        yield kept
    finally:
        hook.remove()


def frozen_copy(model: Model) -> Reference:
    """A second model as the reference. Its parameters keep `requires_grad`: PyTorch chooses its matrix products by
    it, and the reference's must be the policy's, so that the first KL is exactly 0."""
    return lambda: nullcontext(model)


def adapter_off(policy: PeftModel) -> Reference:
    """The policy itself with its adapter switched off as the reference: one trunk for both."""

    @contextmanager
    def reference() -> Iterator[Model]:
        with policy.disable_adapter():
            yield policy

    return reference


def without_critic(policy: Model) -> ActorCritic:
    """The policy alone, whose advantages come from comparing responses."""
    return ActorCritic(policy, None, None)


def with_shared_critic(policy: Model) -> ActorCritic:
    """The critic is a linear head on the policy's trunk, zero at first."""
    # as wide as what the output layer reads: an OPT's may be narrower than its hidden size
    head = nn.Linear(policy.get_output_embeddings().in_features, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return ActorCritic(policy, None, head.to(policy.device))


def with_separate_critic(policy: Model, reward: RewardModel, lora: LoraConfig | None = None) -> ActorCritic:
    """The critic is the reward model's trunk (with `lora`, frozen but for an adapter) and head, rescaled to rewards as
    the reward model gives them, normalised or not.

    It reads the policy's tokens, so the reward model must have the policy's tokenizer.
    """
    old_head, trunk = reward.model.score, reward.model.base_model
    head = nn.Linear(old_head.in_features, 1).to(policy.device)
    with torch.no_grad():
        head.weight.copy_(old_head.weight / reward.std)
        head.bias.fill_(-reward.mean / reward.std)
    if lora is not None:
        trunk = with_lora("ppo", trunk, lora)
        hold_frozen(trunk)
    return ActorCritic(policy, trunk, head)
