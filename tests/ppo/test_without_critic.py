"""Whole PPO runs whose advantages come from comparing responses."""

import pytest
from ppo_steps import assert_first_ratios_are_1, gradients
from ppo_trainers import ppo_params
from trained import rows, same, weights

from rlhf_lib.models import hardware
from rlhf_lib.ppo import build as ppo

REINFORCE = {"critic": "none", "advantage_estimator": "reinforce"}
RLOO = {"critic": "none", "advantage_estimator": "rloo", "num_generations": 4, "gamma": 1.0}
GRPO = {
    **RLOO,
    "advantage_estimator": "grpo",
    "scale_rewards": "group",
    "loss_aggregation": "sequence",
    "kl_in": "loss",
    "kl_estimator": "k3",
}
RUNS = pytest.mark.parametrize("changes", [REINFORCE, RLOO, GRPO], ids=["reinforce", "rloo", "grpo"])


@pytest.mark.parametrize("lora", [{}, {"lora_r": 4}], ids=["full", "lora"])
def test_there_are_no_weights_of_a_critic(ending, tiny, lora):
    model, _ = ppo.policy_and_reference(ppo_params(**RLOO, **lora), str(ending), "no/reward/model")
    assert all(name.startswith("policy.") for name, _ in model.named_parameters())
    assert model.critic_parameters() == set() and model.trunks == [model.policy]


@RUNS
def test_nothing_of_a_critic_is_computed_or_logged(build, changes):
    trainer = build(**changes)
    outputs = []
    trainer.model.register_forward_hook(lambda module, inputs, output: outputs.append(output.values))
    trainer.train()
    assert outputs and set(outputs) == {None}
    for row in rows(trainer):
        assert not {"value_loss", "returns", "explained_variance"} & set(row)
        assert ("frac_reward_zero_std" in row) == (changes is not REINFORCE)
        kl_loss = row["kl_coef"] * row["kl_loss"] if changes is GRPO else 0.0
        assert row["loss"] == pytest.approx(row["policy_loss"] + kl_loss, abs=1e-4)


def test_the_first_ratio_is_exactly_1(build):
    assert_first_ratios_are_1(build(**GRPO, total_rollouts=1))


def test_the_prompt_of_the_answers_in_a_micro_batch_is_read_once(build):
    trainer = build(**GRPO, rollout_batch_size=16, num_minibatches=2, per_device_train_batch_size=4)
    rollout = trainer.sample(0)
    split = trainer._minibatches(rollout, 0, 0)
    assert sorted(row for minibatch in split for micro in minibatch for row in micro) == list(range(16))
    for micro in (micro for minibatch in split for micro in minibatch):
        assert len({row // 4 for row in micro}) == 1
        prompt, responses = rollout.prompts[micro[0]], [rollout.responses[row] for row in micro]
        with hardware.as_on_a_gpu():  # where no rows fill up
            batch = trainer.model.collate([prompt] * 4, responses, trainer.pad_id).policy
        # the prompt's last token is asked for the first of each answer
        assert batch.inputs["input_ids"].numel() == len(prompt) + 3 + sum(len(r.ids) for r in responses)


def test_reinforce_is_gae_of_lambda_1_where_all_values_are_0(build):
    """A head of zeros whose loss has no weight stays 0."""
    alone, beside = build(**REINFORCE), build(critic="shared", lam=1.0, vf_coef=0.0)
    alone.train()
    beside.train()
    assert same(weights(alone.model.policy), weights(beside.model.policy))


@pytest.mark.parametrize("aggregation", ["sequence", "constant"])
def test_the_gradient_does_not_depend_on_the_micro_batches(build, aggregation):
    whole, parts = (
        gradients(
            build(**{**GRPO, "loss_aggregation": aggregation}, per_device_train_batch_size=size, total_rollouts=1)
        )
        for size in (4, 1)
    )
    for one, other in zip(whole, parts, strict=True):
        assert (one - other).norm() < 1e-5 * one.norm()


def test_a_long_response_weighs_as_aggregation_says(build):
    """Of the first step, at ratio 1: the gradients of the three kinds differ, and constant is token but for scale."""
    of_token, of_sequence, of_constant = (
        gradients(build(**{**RLOO, "loss_aggregation": kind}, total_rollouts=1))[0]
        for kind in ("token", "sequence", "constant")
    )
    cosine = (of_token @ of_constant) / of_token.norm() / of_constant.norm()
    assert cosine.item() == pytest.approx(1.0, abs=1e-5) and of_constant.norm() < of_token.norm()
    assert (of_token @ of_sequence) / of_token.norm() / of_sequence.norm() < 0.999
