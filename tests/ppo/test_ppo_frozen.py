"""PPO whose reference, trunk under adapters and reward model are held in bf16."""

import math

import pytest
import torch
from ppo_runs import contains_e
from ppo_steps import CRITICS, assert_first_ratios_are_1
from safetensors.torch import load_file
from trained import column

from rlhf_lib.models import frozen
from rlhf_lib.models import loading as models
from rlhf_lib.training import weights

HELD = {"precision": "bf16", "frozen_dtype": "bf16"}
BY_RULE = {"functions": {"e": contains_e}, "total_rollouts": 2}


def dtypes(module):
    return {p.dtype for p in module.parameters()}


@CRITICS
def test_the_first_kl_is_0_and_the_first_ratio_1(build, compute, critic):
    compute(**HELD)
    assert_first_ratios_are_1(build(**critic, total_rollouts=1))


@CRITICS
def test_what_is_trained_is_in_fp32(build, compute, critic):
    compute(**HELD)
    trainer = build(**critic)
    assert {p.dtype for p in trainer.model.parameters() if p.requires_grad} == {torch.float32}
    with trainer.sampler.reference() as reference:
        assert reference.get_output_embeddings() is not None and frozen.is_held(reference)
        # under adapters both are one model; else the policy's tables are trained, and so the reference's are in fp32
        of_tables = reference.get_input_embeddings().weight.dtype
        assert of_tables == (torch.bfloat16 if "lora_r" in critic else torch.float32)
    assert frozen.is_held(trainer.model) is ("lora_r" in critic)
    if critic["critic"] == "lora":
        assert frozen.is_held(trainer.model.critic_trunk)
    assert dtypes(trainer.model.value_head) == {torch.float32}
    (reward,) = trainer.sampler.reward.functions.values()
    assert frozen.is_held(reward.model) and dtypes(reward.model.score) == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [({}, 0.0), ({"freeze": ["embeddings", "mlp"]}, 0.0), ({"lora_r": 4}, 2e-3)],
    ids=["all", "freeze", "lora"],
)
def test_losses_are_those_of_weights_in_fp32(build, compute, changes, tolerance):
    compute(precision="bf16")
    plain = build(**BY_RULE, **changes)
    plain.train()
    compute(**HELD)
    held = build(**BY_RULE, **changes)
    held.train()
    assert column(held, "kl")[0] == 0.0 and column(held, "kl")[1] != 0.0
    assert all(map(math.isfinite, column(held, "kl")))
    if tolerance == 0:
        assert column(held, "loss") == column(plain, "loss") and column(held, "kl") == column(plain, "kl")
    else:  # rows of held tables are rounded: the second rollout may hold other answers
        assert column(held, "loss")[0] == pytest.approx(column(plain, "loss")[0], abs=tolerance)


def test_a_policy_under_adapters_is_saved_in_full_precision(build, compute, ending):
    compute(**HELD)
    trainer = build(**BY_RULE, lora_r=4)
    trainer.train()
    tokenizer = trainer.processing_class
    weights.save("ppo", trainer.model.policy, tokenizer, "exported", lambda: models.load_policy(ending))
    before, after = (load_file(f"{folder}/model.safetensors") for folder in (ending, "exported"))
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}
    moved = {key for key in before if not after[key].equal(before[key])}
    assert moved == {f"transformer.h.{layer}.attn.c_attn.weight" for layer in (0, 1)}
