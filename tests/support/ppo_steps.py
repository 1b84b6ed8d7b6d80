"""The steps of a PPO run as they are made: outputs of the forward passes, and gradients."""

import pytest
import torch
from trained import column, whole
from transformers import TrainerCallback

CRITICS = pytest.mark.parametrize(
    "critic",
    [{"critic": "shared"}, {"critic": "separate"}, {"critic": "shared", "lora_r": 4}, {"critic": "lora", "lora_r": 4}],
    ids=["shared", "separate", "shared-lora", "lora"],
)


def watch_forward(trainer):
    """Lists, filled while it trains, of the outputs for the scoring of rollouts and of those for the updates."""
    scored, updated = [], []

    def keep(module, inputs, output):
        kept = type(output)(*(None if x is None else x.detach().clone() for x in output))
        (updated if torch.is_grad_enabled() else scored).append(kept)

    trainer.model.register_forward_hook(keep)
    return scored, updated


def assert_first_ratios_are_1(trainer):
    """Train; the updates of the first minibatch see the very log-probs, and values if any, that the scoring saw."""
    scored, updated = watch_forward(trainer)
    trainer.train()
    micro_batches = trainer.args.gradient_accumulation_steps
    for old, new in list(zip(scored, updated, strict=False))[:micro_batches]:
        assert new.logprobs.equal(old.logprobs)
        assert new.values is old.values if old.values is None else new.values.equal(old.values)
    assert not updated[micro_batches].logprobs.equal(scored[micro_batches].logprobs)
    assert column(trainer, "kl")[0] == 0.0


class Gradients(TrainerCallback):
    """Keeps the gradients of every optimizer step, flat, as the optimizer gets them."""

    def __init__(self):
        self.steps = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        self.steps.append(torch.cat([whole(gradient).flatten().clone() for gradient in gradients]))


def gradients(trainer):
    callback = Gradients()
    trainer.add_callback(callback)
    trainer.train()
    return callback.steps
