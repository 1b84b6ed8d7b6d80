"""PPO killed and resumed, and what a run leaves."""

import json
import shutil

import pytest
import torch
from ppo_runs import BEST, CONSTANT, CUT, bad_after
from trained import column, rows, same, weights
from transformers import TrainerCallback

from rlhf_lib.training import trainer as training


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


class KillAfterSave(TrainerCallback):
    """Raises when the checkpoint number `count`, or by default the last one, is whole."""

    def __init__(self, count=None):
        self.left = count

    def on_save(self, args, state, control, **kwargs):
        if self.left is not None:
            self.left -= 1
        if self.left == 0 or (self.left is None and control.should_training_stop):
            raise Killed


def whole_and_resumed(build, checkpoints, killer, **changes):
    """Trainers of a run in one go, and of the same run killed and resumed."""
    whole = build(**changes)
    training.run(whole, checkpoints)
    shutil.rmtree(checkpoints.path)
    checkpoints.path.mkdir()
    killed = build(**changes)
    killed.add_callback(killer)
    with pytest.raises(Killed):
        training.run(killed, checkpoints)
    assert checkpoints.latest() is not None
    resumed = build(**changes)
    torch.manual_seed(99)
    training.run(resumed, checkpoints)
    return whole, resumed


def assert_same_run(whole, resumed):
    assert same(weights(whole.model), weights(resumed.model))
    assert rows(whole) == rows(resumed) and len(rows(whole)) > 0
    assert rows(whole, "eval_reward") == rows(resumed, "eval_reward")
    assert (
        whole.ppo_state.completions == resumed.ppo_state.completions
        and whole.ppo_state.kl_coef == resumed.ppo_state.kl_coef
    )
    assert whole.state.global_step == resumed.state.global_step


RESUMABLE = {"total_rollouts": 4, "eval_rollouts": 1, "save_rollouts": 1}
ADAPTIVE = {"kl_target": 0.02, "kl_horizon": 40.0}


@pytest.mark.parametrize("critic", [{"critic": "separate"}, {"critic": "lora", "lora_r": 4}], ids=["separate", "lora"])
def test_a_killed_run_goes_on_to_the_same_weights_and_log(build, checkpoints, critic):
    killer = KillAt(10)  # within the third rollout, of steps 9 to 12
    changes = {
        **RESUMABLE,
        **ADAPTIVE,
        **critic,
        "scale_rewards": "running",
        "ptx_coef": 0.1,
        "critic_learning_rate": 2e-3,
    }
    whole, resumed = whole_and_resumed(build, checkpoints, killer, **changes)
    assert_same_run(whole, resumed)
    assert (
        len(rows(whole)) == 4
        and len(set(column(whole, "kl_coef"))) == 4
        and len(whole.ppo_state.completions) == 5 * 2 * 2
    )
    assert resumed.lr_scheduler.last_epoch == 16
    assert (
        vars(whole.ppo_state.score_moments) == vars(resumed.ppo_state.score_moments)
        and whole.ppo_state.score_moments.count == 32
    )


def test_a_killed_run_without_a_critic_goes_on_to_the_same_weights_and_log(build, checkpoints):
    changes = {"critic": "none", "advantage_estimator": "rloo", "num_generations": 2, "gamma": 1.0, "lora_r": 4}
    whole, resumed = whole_and_resumed(build, checkpoints, KillAt(6), **{**RESUMABLE, "total_rollouts": 2}, **changes)
    assert_same_run(whole, resumed)


@pytest.mark.slow
@pytest.mark.parametrize("part", [{"lora_r": 4}, {"freeze": ["embeddings", "mlp"]}], ids=["lora", "freeze"])
def test_a_killed_run_goes_on_with_what_it_held_in_bf16(build, checkpoints, compute, part):
    compute(precision="bf16", frozen_dtype="bf16")
    whole, resumed = whole_and_resumed(build, checkpoints, KillAt(6), **RESUMABLE, **part)
    assert_same_run(whole, resumed)


def test_a_run_killed_after_a_rollout_that_was_cut_short_goes_on_the_same(build, checkpoints):
    whole, resumed = whole_and_resumed(build, checkpoints, KillAfterSave(2), **{**RESUMABLE, **CUT})
    assert column(whole, "steps")[0] < 8
    assert_same_run(whole, resumed)


def test_the_best_evaluation_is_remembered_over_a_resume(build, checkpoints):
    def falls(prompts, completions, **columns):
        return [-float(len(completion[0]["content"])) for completion in completions]

    changes = {"functions": {"falls": falls}, **RESUMABLE, **BEST, "metric_for_best_model": "objective", "kl_coef": 5.0}
    whole, resumed = whole_and_resumed(build, checkpoints, KillAfterSave(3), **changes)
    assert_same_run(whole, resumed)
    assert whole.state.best_metric == resumed.state.best_metric


def test_patience_is_remembered_over_a_resume(build, checkpoints):
    changes = {**RESUMABLE, **BEST, "total_rollouts": 8, "early_stopping_patience": 2}
    constant = {"functions": {"one": lambda prompts, **columns: [1.0] * len(prompts)}}
    whole, resumed = whole_and_resumed(build, checkpoints, KillAfterSave(2), **constant, **changes)
    assert column(whole, "rollout") == [1, 2, 3]
    assert_same_run(whole, resumed)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        CUT,
        {"max_kl": 0.05, "learning_rate": 1e-2, **CONSTANT},
        {"early_stopping_patience": 1, "functions": {"one": lambda prompts, **_: [1.0] * len(prompts)}},
    ],
    ids=["all-rollouts", "cut-short", "max-kl", "patience"],
)
def test_a_run_killed_after_its_last_checkpoint_has_nothing_left_to_do(build, checkpoints, changes):
    changes = {**RESUMABLE, **ADAPTIVE, **changes}
    whole, resumed = whole_and_resumed(build, checkpoints, KillAfterSave(), **changes)
    assert_same_run(whole, resumed)
    assert len(resumed.ppo_state.completions) > 0


def test_the_last_checkpoint_of_a_finished_run_is_kept(build, checkpoints):
    trainer = build(functions={"r": bad_after(2)}, **RESUMABLE)
    training.run(trainer, checkpoints)
    assert checkpoints.latest().endswith("checkpoint-16")


def test_a_checkpoint_holds_the_weights_once(build, checkpoints):
    trainer = build(critic="separate", save_rollouts=1)
    training.run(trainer, checkpoints)
    (checkpoint,) = checkpoints.path.glob("checkpoint-*")
    size = (checkpoint / "actor_critic.safetensors").stat().st_size
    assert size == pytest.approx(4 * sum(p.numel() for p in trainer.model.parameters()), rel=0.1)
    assert "kl_coef" in json.loads((checkpoint / "rollout.json").read_text())
    assert not (checkpoint / "model.safetensors").exists()
