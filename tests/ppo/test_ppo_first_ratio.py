"""PPO before its first update: what is sampled, and that the first ratio is exactly 1."""

import dataclasses

import pytest
import torch
from ppo_steps import CRITICS, assert_first_ratios_are_1
from trained import column, same, weights

from rlhf_lib.generation.sampling import response_text
from rlhf_lib.models import hardware
from rlhf_lib.models import loading as models
from rlhf_lib.models.logprobs import Response


def test_policy_and_reference_are_equal_until_the_first_update(build):
    trainer = build()
    trainer.train()
    first, second = column(trainer, "kl")
    assert first == 0.0 and second != 0.0
    assert 0 < column(trainer, "eos_rate")[0] < 1  # so that rows are of several lengths


@pytest.mark.parametrize("response_length", [2, 4, 8])
def test_policy_and_reference_are_equal_at_every_length(build, response_length):
    """Both models go through the same kernels, whichever of their shapes PyTorch has a special one for."""
    trainer = build(total_rollouts=1, response_length=response_length)
    trainer.train()
    assert column(trainer, "kl") == [0.0]


@CRITICS
def test_the_first_ratio_is_exactly_1(build, critic):
    trainer = build(**critic, total_rollouts=1)
    assert trainer.args.gradient_accumulation_steps == 2
    assert_first_ratios_are_1(trainer)


@pytest.mark.parametrize(
    "changes",
    [
        {"top_k": 5},
        {"top_p": 0.7},
        {"top_k": 20, "top_p": 0.8, "min_new_tokens": 3},
        {"min_new_tokens": 3},
        {"stop_strings": ["a", "e"], "missing_eos_penalty": 1.0},
    ],
)
def test_the_first_ratio_is_exactly_1_however_tokens_are_drawn(build, changes):
    trainer = build(total_rollouts=1, entropy_coef=0.1, **changes)
    assert_first_ratios_are_1(trainer)


def test_responses_obey_the_sampling(build):
    """The likeliest tokens only, none shorter than the least length, none past its stop string."""
    trainer = build(top_k=3, min_new_tokens=4, rollout_batch_size=16)
    rollout = trainer.sample(0)
    assert all(len(response.ids) >= 4 for response in rollout.responses)
    for prompt, response in zip(rollout.prompts, rollout.responses, strict=True):
        with torch.no_grad():
            logits = trainer.model.policy(torch.tensor([prompt + response.ids])).logits[0, len(prompt) - 1 : -1]
        logits[:4, trainer.processing_class.eos_token_id] = -torch.inf
        likeliest = logits.topk(3).indices.tolist()
        assert all(token in top for token, top in zip(response.ids, likeliest, strict=True))


def test_a_response_ends_with_its_first_stop_string(build):
    trainer = build(stop_strings=["a", "e"], rollout_batch_size=16, missing_eos_penalty=50.0)
    rollout, ended = trainer.sample(0), []
    for response, score in zip(rollout.responses, rollout.scores.tolist(), strict=True):
        parts = (Response(response.ids[: k + 1], True) for k in range(len(response.ids)))
        *before, whole = (response_text(trainer.processing_class, part) for part in parts)
        assert not any({"a", "e"} & set(part) for part in before)
        if {"a", "e"} & set(whole):
            ended.append(response)
            assert response.finished and score > -25.0
    assert 0 < len(ended) < 16


def test_the_first_ratio_is_exactly_1_in_bfloat16(build, monkeypatch):
    monkeypatch.setattr(hardware, "_chosen", dataclasses.replace(hardware._chosen, precision="bf16"))
    trainer = build(total_rollouts=1, response_length=4)
    dtypes = set()
    trainer.model.policy.transformer.h[0].mlp.register_forward_hook(lambda *hooked: dtypes.add(hooked[-1].dtype))
    assert_first_ratios_are_1(trainer)
    assert torch.bfloat16 in dtypes
    assert next(trainer.model.parameters()).dtype == torch.float32


@CRITICS
def test_without_learning_the_ratio_stays_1(build, critic):
    trainer = build(**critic, learning_rate=0.0)
    before = weights(trainer.model)
    trainer.train()
    assert same(before, weights(trainer.model))
    assert column(trainer, "ratio") == pytest.approx([1.0, 1.0], abs=1e-5)
    assert column(trainer, "approx_kl") == pytest.approx([0.0, 0.0], abs=1e-9)
    assert column(trainer, "clip_fraction") == [0.0, 0.0]
    assert column(trainer, "kl") == [0.0, 0.0]


def test_dropout_in_the_config_does_not_change_the_first_ratio(build, ending, tmp_path):
    noisy = models.load_policy(ending)
    noisy.config.update({"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5})
    models.save(noisy, models.load_tokenizer(ending), tmp_path / "noisy")
    assert_first_ratios_are_1(build(tmp_path / "noisy", total_rollouts=1))
    ids = torch.tensor([[5, 6, 7]])
    noisy = models.load_policy(tmp_path / "noisy").train()
    assert not noisy(ids).logits.equal(noisy(ids).logits)
