"""Activations that are computed again in the backward pass: PPO learns the same to the bit, and draws nothing more."""

import pytest
import torch
from ppo_steps import CRITICS
from torch import nn
from trained import same, weights
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models.logprobs import Distribution, Response
from rlhf_lib.ppo.model import with_shared_critic

HALF = 0.5
KINDS = {  # with dropout as modules, and as a function in the layers' own forward
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 50, "resid_pdrop": HALF, "attn_pdrop": HALF},
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 50,
        "ffn_dim": 48,
        "word_embed_proj_dim": 32,
        "dropout": HALF,
        "layerdrop": HALF,
    },
}


def count_calls(modules):
    """A list that grows by one whenever one of the modules is called to be learnt from."""
    calls = []
    for module in modules:
        module.register_forward_pre_hook(lambda *_: calls.append(1) if torch.is_grad_enabled() else None)
    return calls


@CRITICS
def test_the_same_weights_are_learnt(build, compute, critic):
    seen = []
    for checkpointing in (False, True):
        compute(gradient_checkpointing=checkpointing)
        trainer = build(**critic, total_rollouts=1)
        calls = count_calls(module for name, module in trainer.model.named_modules() if name.endswith(".mlp"))
        trainer.train()
        seen.append((weights(trainer.model), len(calls)))
    (expected, kept), (found, again) = seen
    assert same(found, expected) and again == 2 * kept > 0


@pytest.mark.parametrize("kind", KINDS)
def test_no_dropout_comes_with_it(kind):
    torch.manual_seed(0)
    policy = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **KINDS[kind]))
    model = with_shared_critic(policy)
    nn.init.normal_(model.value_head.weight)
    batches = model.collate([[5, 6, 7], [8, 9]], [Response([10, 11], True), Response([12], True)], pad_id=1)
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            model.checkpoint_activations()
        output = model.train()(batches, Distribution())
        (output.logprobs.sum() + output.values.sum()).backward()
        found.append((output, [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]))
        model.zero_grad()
    (one, gradients), (other, again) = found
    assert one.logprobs.equal(other.logprobs) and one.values.equal(other.values)
    assert len(gradients) > 10 and all(x.equal(y) for x, y in zip(gradients, again, strict=True))
    assert not any(module.training for module in model.eval().modules())


def test_an_architecture_that_keeps_them_is_told_in_one_line():
    config = AutoConfig.for_model("ctrl", n_embd=32, n_layer=2, n_head=2, dff=48, vocab_size=50)
    with pytest.raises(ParamsError, match="compute.gradient_checkpointing: a ctrl keeps its activations") as told:
        with_shared_critic(AutoModelForCausalLM.from_config(config)).checkpoint_activations()
    assert "\n" not in str(told.value)
