"""PPO's update: its loss, gradients and schedule."""

import dataclasses
import itertools

import pytest
import torch
from ppo_runs import contains_e
from ppo_steps import gradients
from ppo_trainers import PTX_ROWS
from trained import column, rows
from transformers import AutoModelForCausalLM

from rlhf_lib.models import hardware, output_layer
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_ids, prompt_ids
from rlhf_lib.ppo.algos import kl_estimate
from rlhf_lib.ppo.model import frozen_copy
from rlhf_lib.ppo.rollout import minibatches, update_inputs

ONE_STEP = {"total_rollouts": 1, "num_ppo_epochs": 1, "num_minibatches": 1}


# ---- The update


def scored_rollout(trainer):
    """The first rollout, scored, and its rows as one minibatch."""
    rollout = trainer.sample(0)
    split = minibatches(range(len(rollout.prompts)), rollout.lengths, trainer.params)
    trainer.score(rollout, split)
    return rollout, split[0]


def loss_by_hand(trainer, rollout, plain, reference):
    """The loss of a whole rollout, row by row, from a plain model's logits and hidden states."""
    params, total = trainer.params, 0.0
    for i, (prompt, response) in enumerate(zip(rollout.prompts, rollout.responses, strict=True)):
        ids = torch.tensor([prompt + response.ids])
        state = slice(len(prompt) - 1, -1)
        output = plain(ids, output_hidden_states=True)
        logp = (output.logits[0, state] / params.temperature).log_softmax(-1)
        chosen = (range(len(response.ids)), response.ids)
        real = slice(len(response.ids))
        old, advantages, returns, values = (
            getattr(rollout, name)[i, real] for name in ("logprobs", "advantages", "returns", "values")
        )
        new_values = trainer.model.value_head(output.hidden_states[-1][0, state]).squeeze(-1)
        for k in range(len(response.ids)):
            ratio, advantage = (logp[chosen][k] - old[k]).exp(), advantages[k]
            high = params.cliprange if params.cliprange_high is None else params.cliprange_high
            gain = torch.min(ratio * advantage, ratio.clamp(1 - params.cliprange, 1 + high) * advantage)
            if params.dual_clip is not None and advantage < 0:
                gain = torch.max(gain, params.dual_clip * advantage)
            moved = values[k] + (new_values[k] - values[k]).clamp(-params.cliprange_value, params.cliprange_value)
            error = torch.max((new_values[k] - returns[k]) ** 2, (moved - returns[k]) ** 2)
            total = total - gain + params.vf_coef * error / 2
        total = total + params.entropy_coef * (logp.exp() * logp).sum()
        if params.kl_in == "loss":
            with torch.no_grad():
                ref = (reference(ids).logits[0, state] / params.temperature).log_softmax(-1)[chosen]
            log_ratio = ref - logp[chosen]
            k3 = log_ratio.exp() - 1 - log_ratio
            total = total + params.kl_coef * (log_ratio**2 / 2 if params.kl_estimator == "k2" else k3).sum()
    return total / rollout.mask.sum()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"entropy_coef": 0.5},
        {"kl_in": "loss", "kl_estimator": "k2", "kl_coef": 0.3},
        {"kl_in": "loss", "kl_estimator": "k3", "kl_coef": 0.3},
        {"cliprange": 0.05, "cliprange_high": 0.4},
        {"dual_clip": 1.1},
        {"cliprange_value": 0.01, "vf_coef": 0.7},
    ],
)
def test_loss_and_gradient_are_those_of_a_loss_by_hand(build, ending, tiny, changes):
    trainer, other = build(**ONE_STEP, **changes), models.load_policy(tiny.policy)
    trainer.reference = trainer.sampler.reference = frozen_copy(other)  # at some distance
    rollout, minibatch = scored_rollout(trainer)
    torch.manual_seed(3)
    with torch.no_grad():  # so that ratios leave their clip range
        for weight in trainer.model.parameters():
            weight.add_(0.03 * torch.randn_like(weight))
    plain = AutoModelForCausalLM.from_pretrained(ending, attn_implementation="eager").eval()
    plain.load_state_dict(trainer.model.policy.state_dict())

    inputs = list(update_inputs(rollout, minibatch, trainer.model.collate, trainer.pad_id))
    assert len(inputs) == 4
    loss = sum(trainer.compute_loss(trainer.model, micro) for micro in inputs)
    loss.backward()
    head = trainer.model.value_head
    of_head, head.weight.grad, head.bias.grad = head.weight.grad.clone(), None, None
    expected = loss_by_hand(trainer, rollout, plain, other)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(head.weight.grad, of_head, atol=1e-5, rtol=1e-4)
    for (name, parameter), (_, by_hand) in zip(
        trainer.model.policy.named_parameters(), plain.named_parameters(), strict=True
    ):
        torch.testing.assert_close(parameter.grad, by_hand.grad, atol=2e-5, rtol=1e-3, msg=name)

    trainer.params = dataclasses.replace(trainer.params, **{key: build().params.__dict__[key] for key in changes})
    without = sum(trainer.compute_loss(trainer.model, micro) for micro in inputs)
    assert not changes or abs(without.item() - loss.item()) > 1e-4


def test_a_rollout_has_what_the_models_say_of_each_token(build, tiny):
    """The critic among them, whose values are 0 only until its first update."""
    trainer, other = build(critic="shared"), models.load_policy(tiny.policy)
    trainer.reference = trainer.sampler.reference = frozen_copy(other)
    torch.manual_seed(3)
    torch.nn.init.normal_(trainer.model.value_head.weight)
    rollout, _ = scored_rollout(trainer)
    for i, (prompt, response) in enumerate(zip(rollout.prompts, rollout.responses, strict=True)):
        ids, said = torch.tensor([prompt + response.ids]), slice(len(prompt) - 1, -1)
        with torch.no_grad():
            output = trainer.model.policy(ids, output_hidden_states=True)
            logp, ref = ((x.logits[0, said] / 0.8).log_softmax(-1) for x in (output, other(ids)))
            values = trainer.model.value_head(output.hidden_states[-1][0, said]).squeeze(-1)
        chosen = (range(len(response.ids)), response.ids)
        expected = {"logprobs": logp[chosen], "ref_logprobs": ref[chosen], "values": values}
        expected["entropy"] = -(logp.exp() * logp).sum(-1)
        for name, by_hand in expected.items():
            torch.testing.assert_close(getattr(rollout, name)[i, : len(by_hand)], by_hand, atol=1e-4, rtol=1e-4)
    assert rollout.values.std() > 0.1
    torch.testing.assert_close(rollout.returns - rollout.advantages, rollout.values)


def test_a_kl_in_the_loss_is_not_in_the_rewards(build, tiny):
    def of(**changes):
        trainer = build(**changes)
        trainer.reference = trainer.sampler.reference = frozen_copy(models.load_policy(tiny.policy))
        return scored_rollout(trainer)[0]

    in_loss, without, in_reward = of(kl_in="loss", kl_estimator="k3"), of(kl_coef=0.0), of(kl_estimator="k3")
    assert in_loss.kl.abs().min() > 0
    assert in_loss.returns.equal(without.returns) and in_loss.advantages.equal(without.advantages)
    assert not in_reward.returns.equal(without.returns)
    reward = -0.1 * kl_estimate(in_reward.logprobs, in_reward.ref_logprobs, "k3")
    last = torch.arange(8), in_reward.mask.sum(1) - 1
    reward[last] += in_reward.scores
    assert in_reward.returns[last].tolist() == pytest.approx(reward[last].tolist(), abs=1e-5)


def test_the_ptx_loss_is_the_mean_over_tokens_of_the_sft_rows(build, ending):
    trainer = build(ptx_coef=0.7, learning_rate=0.0, **ONE_STEP)
    trainer.train()
    plain, tokenizer = AutoModelForCausalLM.from_pretrained(ending).eval(), trainer.processing_class
    known = {}
    for row in PTX_ROWS:
        ids = dialogue_ids(tokenizer, row["prompt"], row["completion"][0]["content"])
        start = len(prompt_ids(tokenizer, row["prompt"]))
        with torch.no_grad():
            logp = plain(torch.tensor([ids])).logits[0].log_softmax(-1)  # at temperature 1
        known[tuple(ids)] = -logp[range(start - 1, len(ids) - 1), ids[start:]].sum().item(), len(ids) - start
    drawn = [tuple(prompt + response.ids) for prompt, response in trainer.ptx.draw(8, trainer.params.seed, 0, 0, 0)]
    assert len(drawn) == 8 and len(set(drawn)) > 2
    expected = sum(known[ids][0] for ids in drawn) / sum(known[ids][1] for ids in drawn)
    (row,) = rows(trainer)
    assert row["ptx_loss"] == pytest.approx(expected, abs=1e-5)
    by_parts = row["policy_loss"] + 0.1 * row["value_loss"] + 0.7 * row["ptx_loss"]
    assert row["loss"] == pytest.approx(by_parts, abs=1e-4)


def test_sft_rows_are_drawn_anew_for_every_step(build):
    trainer = build(ptx_coef=0.7)
    draws = [trainer.ptx.draw(4, 0, *step) for step in itertools.product(range(2), range(2), range(2))]
    assert len({str(draw) for draw in draws}) > 4
    steps = gradients(trainer)
    assert len(steps) == 8 and column(trainer, "ptx_loss")[1] < column(trainer, "ptx_loss")[0]


@pytest.mark.parametrize(
    "changes", [{}, {"ptx_coef": 0.5, "entropy_coef": 0.1}, {"critic": "separate"}, {"critic": "lora", "lora_r": 4}]
)
def test_the_gradient_does_not_depend_on_the_micro_batch_size(build, changes):
    changes = {**ONE_STEP, "vf_coef": 0.5, "whiten_advantages": True, **changes}
    whole, *parts = (gradients(build(per_device_train_batch_size=s, **changes)) for s in (8, 2, 1))
    assert len(whole) == 1 and whole[0].abs().max() > 1e-2
    for part in parts:
        assert len(part) == 1
        assert (part[0] - whole[0]).norm() < 2e-6 * whole[0].norm()


@pytest.mark.parametrize(
    "changes",
    [{}, {"ptx_coef": 0.5, "entropy_coef": 0.1, "top_k": 30, "min_new_tokens": 2}, {"critic": "lora", "lora_r": 4}],
    ids=str,
)
def test_the_gradient_is_the_same_in_chunks_of_logits_as_on_a_gpu(build, changes, monkeypatch):
    monkeypatch.setattr(output_layer, "CHUNK", 5 * build(**ONE_STEP).model.policy.config.vocab_size)
    (expected,) = gradients(build(**ONE_STEP, **changes))
    with hardware.as_on_a_gpu():
        (got,) = gradients(build(**ONE_STEP, **changes))
    assert (got - expected).norm() < 2e-5 * expected.norm()


def test_the_loss_is_that_of_its_weighted_parts(build):
    changes = {"vf_coef": 0.3, "entropy_coef": 0.2, "kl_in": "loss", "kl_estimator": "k3", "kl_coef": 0.4}
    trainer = build(**changes)
    trainer.train()
    for row in rows(trainer):
        parts = row["policy_loss"] + 0.3 * row["value_loss"] + 0.2 * row["entropy_loss"] + 0.4 * row["kl_loss"]
        assert row["loss"] == pytest.approx(parts, abs=1e-4)
        assert row["value_loss"] > 1e-3 and row["entropy_loss"] < 0


def test_the_schedule_has_a_step_for_every_optimizer_step(build):
    trainer = build(total_rollouts=3, num_ppo_epochs=2, num_minibatches=4)
    steps = gradients(trainer)
    assert len(steps) == trainer.state.global_step == trainer.lr_scheduler.last_epoch == 3 * 2 * 4
    assert trainer.optimizer.param_groups[0]["lr"] == 0.0
    # logged after 8, 16 and 24 of 24 steps, each the rate of the step before
    assert column(trainer, "learning_rate") == pytest.approx([1e-3 * (25 - step) / 24 for step in (8, 16, 24)])


def test_gradients_are_clipped_to_max_grad_norm(build):
    free = build(**ONE_STEP)
    (whole,) = gradients(free)
    clipped = build(max_grad_norm=0.01, **ONE_STEP)
    (cut,) = gradients(clipped)
    assert whole.norm() > 0.1
    assert cut.norm().item() == pytest.approx(0.01, rel=1e-3)
    assert column(clipped, "grad_norm") == pytest.approx([whole.norm().item()], rel=1e-4)
    assert column(free, "grad_norm") == pytest.approx([whole.norm().item()], rel=1e-4)


def test_the_policy_learns_a_rule(build):
    lengths = {"rollout_batch_size": 32, "per_device_train_batch_size": 16, "total_rollouts": 15}
    changes = {"learning_rate": 1e-2, "lr_scheduler_type": "constant", "kl_coef": 0.01, "whiten_advantages": True}
    trainer = build(functions={"contains_e": contains_e}, **changes, **lengths)
    trainer.train()
    rewards = column(trainer, "reward")
    assert sum(rewards[:2]) / 2 < 0.3
    assert sum(rewards[-3:]) / 3 > 0.7
    assert column(trainer, "kl")[-1] > 1.0
