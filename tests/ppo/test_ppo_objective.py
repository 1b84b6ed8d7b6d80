"""What PPO's best checkpoint and early stopping go by: what it learns from."""

import pytest
import torch
from ppo_runs import BEST, by_length
from trained import column, same, weights
from transformers import AutoModelForCausalLM, TrainerCallback

from rlhf_lib.ppo.algos import RunningMoments
from rlhf_lib.training import trainer as training

REWARDS = [1.0, 2.0, 6.0]
GIVEN = {"given": lambda prompts, **columns: REWARDS if len(prompts) == 3 else [1.0] * len(prompts)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, lambda length, cut: 3.0),
        ({"reward_clip": 4.0}, lambda length, cut: 7 / 3),
        ({"length_penalty": 0.5}, lambda length, cut: 3.0 - 0.5 * length),
        ({"missing_eos_penalty": 9.0}, lambda length, cut: 3.0 - 9.0 * sum(cut) / 3),
        (
            {"missing_eos_penalty": 9.0, "missing_eos_replaces": True},
            lambda length, cut: sum(-9.0 if short else r for short, r in zip(cut, REWARDS, strict=True)) / 3,
        ),
        # the rewards' mean is 3 and their variance (4 + 1 + 9) / 3
        ({"scale_rewards": "running"}, lambda length, cut: 3.0 / (14 / 3) ** 0.5),
    ],
    ids=["plain", "clip", "length", "missing-eos", "replaces", "scale"],
)
def test_the_objective_is_of_rewards_as_they_are_learnt_from(build, changes, expected):
    trainer = build(functions=GIVEN, **changes)
    metrics = trainer.evaluate()
    answers, _ = trainer.sampler.respond(trainer.eval_prompts, trainer.sampling)
    cut = [not answer.finished for answer in answers]
    assert 0 < sum(cut) < 3 and metrics["eval_eos_rate"] == pytest.approx(1 - sum(cut) / 3)
    assert metrics["eval_objective"] == pytest.approx(expected(metrics["eval_length"], cut))
    assert metrics["eval_reward"] == metrics["eval_greedy_reward"] == 3.0
    assert trainer.ppo_state.score_moments == RunningMoments()


def test_rewards_are_scaled_alike_in_every_evaluation(build):
    """By the spread of the first one, whatever the rollouts saw since."""
    trainer = build(functions=GIVEN, scale_rewards="running")
    trainer.evaluate()
    trainer.ppo_state.score_moments.update(torch.tensor([-50.0, 50.0]))
    trainer.sampler.reward.functions["given"] = lambda prompts, **columns: [2 * reward for reward in REWARDS]
    assert trainer.evaluate()["eval_objective"] == pytest.approx(6.0 / (14 / 3) ** 0.5)
    assert trainer.ppo_state.score_moments.count == 2


def log_ratios(trainer, ending):
    """Of each answer to the evaluation prompts, its tokens' log(policy / reference) by transformers' own models."""
    policy, reference = (AutoModelForCausalLM.from_pretrained(ending).eval() for _ in range(2))
    policy.load_state_dict(trainer.model.policy.state_dict())
    answers, _ = trainer.sampler.respond(trainer.eval_prompts, trainer.sampling)
    for prompt, answer in zip(trainer.eval_prompts.ids, answers, strict=True):
        ids, places = torch.tensor([prompt + answer.ids]), range(len(prompt) - 1, len(prompt) + len(answer.ids) - 1)
        with torch.no_grad():
            both = [
                (model(ids).logits[0] / 0.8).log_softmax(-1)[list(places), answer.ids] for model in (policy, reference)
            ]
        yield both[0] - both[1]


@pytest.mark.parametrize(
    ("changes", "estimate"),
    [
        ({"kl_estimator": "k1"}, lambda x: x),
        ({"kl_estimator": "k2"}, lambda x: x**2 / 2),
        ({"kl_estimator": "k3"}, lambda x: (-x).exp() - 1 + x),
        ({"kl_estimator": "k3", "kl_in": "loss"}, lambda x: (-x).exp() - 1 + x),
        ({"kl_estimator": "k1", "kl_clip": 0.05}, lambda x: x.clamp(-0.05, 0.05)),
    ],
    ids=["k1", "k2", "k3", "k3-in-the-loss", "clipped"],
)
def test_the_objective_has_the_kl_as_it_is_penalised(build, ending, changes, estimate):
    trainer = build(functions=GIVEN, kl_coef=0.3, **changes)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in trainer.model.policy.parameters():
            weight.add_(0.03 * torch.randn_like(weight))
    metrics, ratios = trainer.evaluate(), list(log_ratios(trainer, ending))
    penalty = sum(estimate(ratio).sum().item() for ratio in ratios) / 3
    assert abs(penalty) > 2e-3 and max(ratio.abs().max() for ratio in ratios) > 0.05
    assert metrics["eval_objective"] == pytest.approx(3.0 - 0.3 * penalty, abs=1e-4)
    assert metrics["eval_kl"] == pytest.approx(sum(ratio.sum().item() for ratio in ratios) / 3, abs=1e-4)


class NeverEnds(TrainerCallback):
    """After the second of two rollouts, of four steps each, the policy cannot write its EOS any more."""

    def __init__(self, eos_id):
        self.eos_id = eos_id

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if state.global_step == 8:  # before the evaluation that follows
            norm, rows = model.policy.transformer.ln_f, model.policy.get_input_embeddings().weight
            with torch.no_grad():
                norm.bias.sub_(50 * rows[self.eos_id] / rows[self.eos_id].square().sum())


@pytest.mark.parametrize(
    ("penalty", "metric", "best"), [(None, "objective", 1), (50.0, "objective", 0), (50.0, "reward", 1)]
)
def test_a_policy_that_never_ends_is_best_only_where_it_is_not_penalised(build, checkpoints, penalty, metric, best):
    """The longer an answer, the higher its reward; the policy that writes on to the limit has the highest."""
    changes = {**BEST, "learning_rate": 0.0, "missing_eos_penalty": penalty, "metric_for_best_model": metric}
    trainer, seen = build(functions={"by_length": by_length}, **changes), []
    trainer.callback_handler.callbacks.insert(0, NeverEnds(trainer.processing_class.eos_token_id))

    class Evaluated(TrainerCallback):
        def on_evaluate(self, args, state, control, model=None, **kwargs):
            seen.append(weights(model))

    trainer.add_callback(Evaluated())
    training.run(trainer, checkpoints)
    (_, before, after), (_, ended, endless) = column(trainer, "eval_reward"), column(trainer, "eval_eos_rate")
    assert after > before and ended > endless == 0.0
    assert same(weights(trainer.model), seen[1 + best]) and not same(seen[1], seen[2])
    assert trainer.state.best_metric == column(trainer, f"eval_{metric}")[1 + best]


@pytest.mark.parametrize(("penalty", "rollouts"), [(None, 3), (50.0, 2)])
def test_patience_is_lost_with_a_policy_that_never_ends(build, checkpoints, penalty, rollouts):
    changes = {"early_stopping_patience": 1, "total_rollouts": 3, "eval_rollouts": 1, "learning_rate": 0.0}
    options = {"metric_for_best_model": "objective", "missing_eos_penalty": penalty}
    trainer = build(functions={"by_length": by_length}, **changes, **options)
    trainer.callback_handler.callbacks.insert(0, NeverEnds(trainer.processing_class.eos_token_id))
    training.run(trainer, checkpoints)
    assert column(trainer, "rollout") == list(range(1, rollouts + 1))
