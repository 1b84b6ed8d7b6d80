"""PPO's best checkpoint, and what ends a run or the learning from a rollout before its time."""

import pytest
from ppo_runs import BEST, CONSTANT, CUT, bad_after
from trained import column, rows, same, weights
from transformers import TrainerCallback

from rlhf_lib.training import trainer as training


class Evaluations(TrainerCallback):
    """The weights at each evaluation."""

    def __init__(self):
        self.weights = []

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        self.weights.append(weights(model))


@pytest.mark.parametrize("changes", [{"save_rollouts": 1}, {"save_rollouts": 100}, {"save_rollouts": 3, "lora_r": 4}])
def test_the_weights_of_the_best_evaluation_are_kept(build, checkpoints, changes):
    changes = {"total_rollouts": 4, **BEST, **changes}
    trainer, seen = build(functions={"r": bad_after(3)}, **changes), Evaluations()
    trainer.add_callback(seen)
    training.run(trainer, checkpoints)
    assert column(trainer, "eval_reward") == [-2.0, -1.0, 0.0, -1.0, -2.0]
    assert same(weights(trainer.model), seen.weights[2]) and not same(seen.weights[2], seen.weights[4])
    assert trainer.state.best_metric == 0.0 and trainer.state.global_step == 16


def test_the_best_policy_is_a_trained_one_where_none_is_as_good_as_the_sft_model(build, checkpoints):
    changes = {**BEST, "total_rollouts": 8, "early_stopping_patience": 2}
    trainer, seen = build(functions={"r": bad_after(0)}, **changes), Evaluations()
    trainer.add_callback(seen)
    training.run(trainer, checkpoints)
    assert column(trainer, "eval_reward") == [-1.0, -2.0, -3.0, -4.0]  # the patience counts from the first rollout
    assert same(weights(trainer.model), seen.weights[1]) and not same(seen.weights[0], seen.weights[1])
    assert trainer.state.best_metric == -2.0


@pytest.mark.parametrize("metric", ["reward", "objective"])
def test_what_is_best_is_told_by_the_metric_asked_for(build, checkpoints, metric):
    """The policy moves far away from its reference for a reward that rises by little."""
    rising = {"one": lambda prompts, **columns: [1.0 + trainer.state.global_step / 1000] * len(prompts)}
    changes = {"total_rollouts": 3, "metric_for_best_model": metric, "kl_coef": 1.0, **BEST, "learning_rate": 3e-3}
    trainer, seen = build(functions=rising, **changes), Evaluations()
    trainer.add_callback(seen)
    training.run(trainer, checkpoints)
    measured = column(trainer, f"eval_{metric}")[1:]
    best = measured.index(max(measured))
    assert same(weights(trainer.model), seen.weights[1 + best])
    assert (best == 2) == (metric == "reward")
    assert measured[best] == trainer.state.best_metric


@pytest.mark.parametrize("load_best", [True, False])
def test_a_run_stops_after_evaluations_without_a_better_one(build, checkpoints, load_best):
    changes = {**BEST, "load_best_model_at_end": load_best, "early_stopping_patience": 2}
    trainer = build(functions={"r": bad_after(3)}, total_rollouts=8, **changes)
    training.run(trainer, checkpoints)
    assert column(trainer, "eval_reward") == [-2.0, -1.0, 0.0, -1.0, -2.0]
    assert column(trainer, "rollout") == [1, 2, 3, 4]


def test_a_run_stops_when_the_policy_is_too_far_and_still_evaluates_and_saves(build, checkpoints, capsys):
    trainer = build(max_kl=0.05, total_rollouts=8, learning_rate=1e-2, **CONSTANT)
    training.run(trainer, checkpoints)
    kls = column(trainer, "kl")
    assert len(kls) < 8 and kls[-1] > 0.05 and all(kl <= 0.05 for kl in kls[:-1])
    assert len(rows(trainer, "eval_reward")) == 2
    assert checkpoints.latest().endswith(f"checkpoint-{4 * len(kls)}")
    assert f"stopped after rollout {len(kls)}: KL" in capsys.readouterr().out


def test_learning_from_a_rollout_ends_when_the_policy_has_left_it(build):
    trainer = build(**CUT)
    trainer.train()
    steps = column(trainer, "steps")
    assert column(trainer, "rollout") == [1, 2, 3, 4] and column(trainer, "reward")
    assert min(steps) < 8 and trainer.state.global_step == sum(steps)
    assert len(rows(trainer, "eval_reward")) == 2 and trainer.ppo_state.rollouts_done == 4
    whole = build(**{**CUT, "max_approx_kl": None})
    whole.train()
    assert column(whole, "steps") == [8] * 4


def test_logged_means_are_over_the_steps_that_were_made(build):
    trainer = build(**CUT)
    trainer.train()
    for row in rows(trainer):
        assert row["loss"] == pytest.approx(row["policy_loss"] + 0.1 * row["value_loss"], abs=1e-4)
        assert row["ratio"] == pytest.approx(1.0, abs=0.2)


def test_the_best_policy_is_found_by_a_run_that_was_killed_after_its_last_checkpoint(build, checkpoints):
    """A checkpoint names the best one without its place."""
    changes = {"total_rollouts": 3, "save_rollouts": 1, **BEST}
    whole = build(functions={"r": bad_after(3)}, **changes)
    training.run(whole, checkpoints)
    resumed = build(functions={"r": bad_after(3)}, **changes)
    training.run(resumed, checkpoints)
    assert resumed.state.global_step == whole.state.global_step
    assert same(weights(resumed.model), weights(whole.model))
