"""One rollout and its update: what is sampled, what is learnt from it, and that the first ratio is exactly 1."""

import dataclasses
import itertools

import pytest
import torch
from ppo_runs import contains_e
from ppo_steps import CRITICS, assert_first_ratios_are_1, gradients
from ppo_trainers import PTX_ROWS, TRAIN_ROWS
from trained import column, rows, same, weights
from transformers import AutoModelForCausalLM, TrainerCallback

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.generation.decoding import text
from rlhf_lib.models import hardware
from rlhf_lib.models import loading as models
from rlhf_lib.models.chat import dialogue_ids, prompt_ids
from rlhf_lib.models.logprobs import Response
from rlhf_lib.ppo.algos import kl_estimate
from rlhf_lib.ppo.model import frozen_copy
from rlhf_lib.ppo.rollout import minibatches, update_inputs

ONE_STEP = {"total_rollouts": 1, "num_ppo_epochs": 1, "num_minibatches": 1}


# ---- Before the first update


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
        *before, whole = (text(trainer.processing_class, part) for part in parts)
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

    inputs = list(update_inputs(rollout, minibatch, trainer.model.policy, trainer.pad_id))
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


# ---- Rollouts


class Snapshots(TrainerCallback):
    """The weights after each optimizer step, by its number."""

    def __init__(self):
        self.at = {}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.at[state.global_step] = weights(model.policy)


def test_each_rollout_is_sampled_from_the_policy_after_the_last_update(build):
    snapshots, sampled = Snapshots(), []

    def reward(prompts, **columns):
        if len(prompts) == 8:  # not an evaluation
            sampled.append((trainer.state.global_step, weights(trainer.model.policy)))
        return [0.5] * len(prompts)

    trainer = build(total_rollouts=3, functions={"reward": reward})
    snapshots.at[0] = weights(trainer.model.policy)
    trainer.add_callback(snapshots)
    trainer.train()
    assert [step for step, _ in sampled] == [0, 4, 8]
    assert all(same(policy, snapshots.at[step]) for step, policy in sampled)
    assert not same(snapshots.at[3], snapshots.at[4])


def test_each_prompt_is_answered_num_generations_times_in_a_row(build):
    trainer = build(num_generations=4, rollout_batch_size=16)
    first, second = trainer.sample(0), trainer.sample(1)
    for rollout in (first, second):
        blocks = [rollout.prompts[start : start + 4] for start in range(0, 16, 4)]
        assert all(block == block[:1] * 4 for block in blocks)
        assert len({str(block[0]) for block in blocks}) == 4
        for start in range(0, 16, 4):
            assert len({tuple(response.ids) for response in rollout.responses[start : start + 4]}) > 1
    walked = {str(prompt) for rollout in (first, second) for prompt in rollout.prompts}
    assert len(walked) == 8  # of 9 prompts, none came back before its time


def test_every_pass_over_the_prompts_holds_each_once(build):
    trainer, other = build(), build(seed=1)
    ids = [prompt_ids(trainer.processing_class, row["prompt"]) for row in TRAIN_ROWS]
    walked = [ids.index(prompt) for index in range(9) for prompt in trainer.sample(index).prompts]
    passes = [walked[start : start + 9] for start in range(0, 72, 9)]
    assert all(sorted(one) == list(range(9)) for one in passes)
    assert len({tuple(one) for one in passes}) > 1
    assert trainer.sample(4).prompts == [ids[i] for i in walked[32:40]]
    assert other.sample(0).prompts != trainer.sample(0).prompts


def test_a_rollout_may_be_larger_than_the_prompts(build):
    trainer = build(rollout_batch_size=24)
    rollout = trainer.sample(0)
    ids = [prompt_ids(trainer.processing_class, row["prompt"]) for row in TRAIN_ROWS]
    indices = [ids.index(prompt) for prompt in rollout.prompts]
    assert len(indices) == 24 and sorted(indices[:18]) == sorted(2 * list(range(9)))


def test_responses_without_room_for_a_prompt_are_refused_in_one_line(build):
    with pytest.raises(ParamsError, match=r"ppo\.response_length: 60 new tokens") as error:
        build(response_length=60)
    assert "\n" not in str(error.value)
