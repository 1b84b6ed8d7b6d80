"""Whole PPO runs: rewards and scores, evaluation, the best checkpoint, stops, kill and resume."""

import json
import shutil

import pytest
import torch
from ppo_runs import contains_e
from ppo_trainers import EVAL_ROWS, TRAIN_ROWS
from trained import column, rows, same, weights
from transformers import TrainerCallback

from rlhf_lib.generation.decoding import text
from rlhf_lib.models.chat import prompt_ids
from rlhf_lib.ppo.algos import adapt_kl_coef
from rlhf_lib.training import trainer as training

CONSTANT = {"lr_scheduler_type": "constant"}


def texts(trainer, rollout):
    return [text(trainer.processing_class, response) for response in rollout.responses]


# ---- Rewards and scores


def by_length(completions, **columns):
    return [float(len(completion[0]["content"])) for completion in completions]


def on_cats_alone(completions, answer, **columns):
    return [1.0 if noun == "cat" else None for noun in answer]


MODULE = """
calls = []


def recorded(prompts, completions, answer, source, **columns):
    calls.append((prompts, completions, answer, source, columns))
    return [None if noun == "sky" else float(len(noun) + i) for i, noun in enumerate(answer)]
"""


def test_a_function_by_name_gets_the_rows_columns(build, tmp_path, monkeypatch):
    (tmp_path / "recording_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    trainer = build(reward_funcs=["recording_rewards:recorded"])
    import recording_rewards

    rollout = trainer.sample(0)
    ((prompts, completions, answer, source, columns),) = recording_rewards.calls
    ids = [prompt_ids(trainer.processing_class, row["prompt"]) for row in TRAIN_ROWS]
    asked = [TRAIN_ROWS[ids.index(prompt)] for prompt in rollout.prompts]
    assert prompts == [row["prompt"] for row in asked]
    assert completions == [[{"role": "assistant", "content": text}] for text in texts(trainer, rollout)]
    assert (answer, source) == ([row["answer"] for row in asked], ["demo/facts"] * 8)
    assert columns == {"id": [row["id"] for row in asked]}
    assert any(response.finished for response in rollout.responses)
    assert all(trainer.processing_class.eos_token not in completion[0]["content"] for completion in completions)
    expected = [0.0 if noun == "sky" else 3.0 + i for i, noun in enumerate(answer)]
    assert "sky" in answer and rollout.scores.tolist() == expected
    trainer.evaluate()
    assert recording_rewards.calls[-1][2:4] == ([row["answer"] for row in EVAL_ROWS], ["other"] * 3)


def test_rewards_are_weighted_and_each_is_logged(build):
    functions = {"by_length": by_length, "on_cats_alone": on_cats_alone, "contains_e": contains_e}
    trainer = build(functions=functions, weights=[0.5, -3.0, 0.0], total_rollouts=1)
    rollout = trainer.sample(0)
    trainer.train()
    ids = {str(prompt_ids(trainer.processing_class, row["prompt"])): row["answer"] for row in TRAIN_ROWS}
    asked, answers = [ids[str(prompt)] for prompt in rollout.prompts], texts(trainer, rollout)
    expected = [0.5 * len(a) - 3.0 * (noun == "cat") for a, noun in zip(answers, asked, strict=True)]
    assert rollout.scores.tolist() == pytest.approx(expected) and set(asked) == {"cat", "dog", "sky"}
    (row,) = rows(trainer)
    assert row["reward"] == row["score"] == pytest.approx(sum(expected) / 8)
    assert row["rewards/by_length"] == pytest.approx(sum(map(len, answers)) / 8)
    assert row["rewards/on_cats_alone"] == 1.0  # the mean of those that it scored
    assert row["rewards/contains_e"] == pytest.approx(sum("e" in a for a in answers) / 8)
    evaluation = rows(trainer, "eval_reward")[-1]
    assert {"eval_rewards/by_length", "eval_greedy_rewards/contains_e"} <= evaluation.keys()


def test_a_lone_reward_is_logged_once(build):
    trainer = build(functions={"contains_e": contains_e}, total_rollouts=1)
    trainer.train()
    assert not any("rewards/" in key for entry in trainer.state.log_history for key in entry)


def test_rewards_of_a_model_are_normalised_unless_they_are_not_to_be(build):
    normalised, raw = build(total_rollouts=1), build(total_rollouts=1, normalize_rewards=False)
    scores, rewards = raw.sample(0).scores, normalised.sample(0).scores
    assert rewards.tolist() == pytest.approx(((scores - 0.1) / 0.5).tolist(), abs=1e-5)


def scores_by_hand(rewards, lengths, finished, clip=None, per_token=0.0, penalty=None, replaces=False):
    scores = []
    for reward, length, ended in zip(rewards, lengths, finished, strict=True):
        score = reward if clip is None else min(max(reward, -clip), clip)
        score -= per_token * length
        if not ended and penalty is not None:
            score = -penalty if replaces else score - penalty
        scores.append(score)
    return scores


@pytest.mark.parametrize(
    ("changes", "by_hand"),
    [
        ({"reward_clip": 5.0}, {"clip": 5.0}),
        ({"length_penalty": 0.25}, {"per_token": 0.25}),
        ({"missing_eos_penalty": 2.0}, {"penalty": 2.0}),
        ({"missing_eos_penalty": 2.0, "missing_eos_replaces": True}, {"penalty": 2.0, "replaces": True}),
        (
            {"reward_clip": 5.0, "length_penalty": 0.25, "missing_eos_penalty": 2.0},
            {"clip": 5.0, "per_token": 0.25, "penalty": 2.0},
        ),
    ],
)
def test_scores_are_rewards_after_clip_and_penalties(build, changes, by_hand):
    trainer = build(functions={"by_length": by_length}, total_rollouts=1, **changes)
    rollout = trainer.sample(0)
    rewards = [float(len(answer)) for answer in texts(trainer, rollout)]
    lengths = [len(response.ids) for response in rollout.responses]
    finished = [response.finished for response in rollout.responses]
    assert any(finished) and not all(finished) and max(rewards) > 5.0
    expected = scores_by_hand(rewards, lengths, finished, **by_hand)
    assert rollout.scores.tolist() == pytest.approx(expected, abs=1e-6)
    trainer.train()
    (row,) = rows(trainer)
    assert row["reward"] == pytest.approx(sum(rewards) / 8) and row["score"] == pytest.approx(sum(expected) / 8)


def test_scaled_rewards_are_in_units_of_their_spread_so_far(build):
    trainer, seen = build(functions={"by_length": by_length}, scale_rewards=True, reward_clip=1.5), []
    for index in range(3):
        rollout = trainer.sample(index)
        rewards = torch.tensor([float(len(answer)) for answer in texts(trainer, rollout)])
        seen.append(rewards)
        std = torch.cat(seen).std(correction=0)
        torch.testing.assert_close(rollout.scores, (rewards / std).clamp(-1.5, 1.5))
    assert rollout.scores.max() == 1.5 and rollout.scores.min() < 1.5


def test_an_adaptive_kl_coefficient_follows_the_kl(build):
    adaptive = {"kl_target": 0.02, "kl_horizon": 40.0, "learning_rate": 3e-3}
    trainer = build(total_rollouts=6, **CONSTANT, **adaptive)
    trainer.train()
    coefficients, kls = column(trainer, "kl_coef"), column(trainer, "kl")
    expected = [0.1]
    for kl in kls[:-1]:
        expected.append(adapt_kl_coef(expected[-1], kl, target=0.02, horizon=40.0, rows=8))
    assert coefficients == pytest.approx(expected)
    assert coefficients[1] == pytest.approx(0.096)  # a first KL of 0 is below any target: 0.1 (1 - 0.2 * 8 / 40)
    assert max(kls) > 0.024 and max(coefficients) > 0.1


# ---- Evaluation


def test_evaluation_leaves_the_training_as_it_was(build):
    often = build(total_rollouts=3, eval_rollouts=1)
    often.train()
    never = build(total_rollouts=3)
    never.train()
    steps = [[row["step"] for row in rows(trainer, "eval_reward")] for trainer in (often, never)]
    assert steps == [[0, 4, 8, 12], [0, 12]]
    assert same(weights(often.model), weights(never.model))
    assert rows(often) == rows(never)


def test_evaluation_measures_the_responses_to_its_prompts(build):
    seen = []

    def reward(prompts, completions, **columns):
        seen.append((prompts, completions))
        return [1.0, 2.0, 6.0]

    trainer = build(functions={"reward": reward}, kl_coef=0.5)
    state = torch.get_rng_state()
    metrics = trainer.evaluate()
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(77)
    assert trainer.evaluate() == metrics and seen[:2] == seen[2:]
    assert all(prompts == [row["prompt"] for row in EVAL_ROWS] for prompts, _ in seen)
    assert seen[0][1] != seen[1][1]  # sampled and greedy
    assert metrics["eval_reward"] == metrics["eval_greedy_reward"] == metrics["eval_objective"] == 3.0
    assert metrics["eval_kl"] == metrics["eval_greedy_kl"] == 0.0
    assert 1 <= metrics["eval_length"] <= 8 and 0 <= metrics["eval_eos_rate"] <= 1
    names = {"reward", "kl", "length", "eos_rate"}
    assert metrics.keys() - {"epoch"} == {f"eval_{n}" for n in (*names, "objective", *(f"greedy_{n}" for n in names))}


def test_the_objective_is_the_reward_less_the_weighted_kl(build):
    trainer = build(learning_rate=1e-2, kl_coef=0.3, kl_target=0.01, eval_rollouts=1)
    trainer.train()
    for row in rows(trainer, "eval_reward"):
        assert row["eval_objective"] == pytest.approx(row["eval_reward"] - 0.3 * row["eval_kl"])
        assert (row["eval_kl"] == 0.0) == (row["step"] == 0)


@pytest.mark.parametrize("changes", [{}, {"lora_r": 4}])
def test_the_first_evaluation_is_of_the_sft_model(build, changes):
    trainer = build(eval_rollouts=1, **changes)
    expected = {k: v for k, v in trainer.evaluate().items() if k != "epoch"}
    trainer.completions.clear()
    trainer.train()
    first, second, third = rows(trainer, "eval_reward")
    assert first == {**expected, "step": 0} and expected["eval_kl"] == expected["eval_greedy_kl"] == 0.0
    assert (second["step"], third["step"]) == (4, 8) and second["eval_kl"] != 0.0
    assert {row["kl"] for row in trainer.completions if row["rollout"] == 0} == {0.0}


def test_evaluation_takes_at_most_so_many_prompts(build):
    seen = []

    def reward(prompts, **columns):
        seen.append(prompts)
        return [1.0] * len(prompts)

    build(functions={"reward": reward}, max_eval_prompts=2).evaluate()
    assert seen == [[row["prompt"] for row in EVAL_ROWS[:2]]] * 2


def test_completions_are_kept_in_the_number_asked_for(build):
    trainer = build(functions={"by_length": by_length}, eval_rollouts=1, num_completions_to_log=2)
    trainer.train()
    kept = trainer.completions
    assert [(row["rollout"], row["mode"]) for row in kept] == [
        (rollout, mode) for rollout in (0, 1, 2) for mode in ("sampled", "greedy") for _ in range(2)
    ]
    for name in ("id", "source", "prompt"):
        assert [row[name] for row in kept] == [row[name] for row in EVAL_ROWS[:2]] * 6
    assert all(row["reward"] == len(row["completion"]) for row in kept)
    assert any(row["kl"] != 0.0 for row in kept)
    none = build(num_completions_to_log=0, total_rollouts=1)
    none.train()
    assert none.completions == []
    every = build(num_completions_to_log=None, total_rollouts=1)
    every.train()
    assert [row["id"] for row in every.completions] == [row["id"] for row in EVAL_ROWS] * 4


# ---- The best checkpoint, and stops


class Evaluations(TrainerCallback):
    """The weights at each evaluation."""

    def __init__(self):
        self.weights = []

    def on_evaluate(self, args, state, control, model=None, **kwargs):
        self.weights.append(weights(model))


def bad_after(calls):
    """A reward that rises with the evaluations up to their number `calls`, and falls from there."""
    count = [0]

    def reward(prompts, **columns):
        if len(prompts) == len(EVAL_ROWS):
            count[0] += 1
        number = (count[0] + 1) // 2  # each evaluation samples twice
        return [float(-abs(number - calls))] * len(prompts)

    return reward


BEST = {"eval_rollouts": 1, "load_best_model_at_end": True, "learning_rate": 1e-2, **CONSTANT}


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


CUT = {"max_approx_kl": 1e-3, "learning_rate": 5e-3, "num_ppo_epochs": 4, "total_rollouts": 4, **CONSTANT}


def test_learning_from_a_rollout_ends_when_the_policy_has_left_it(build):
    trainer = build(**CUT)
    trainer.train()
    steps = column(trainer, "steps")
    assert column(trainer, "rollout") == [1, 2, 3, 4] and column(trainer, "reward")
    assert min(steps) < 8 and trainer.state.global_step == sum(steps)
    assert len(rows(trainer, "eval_reward")) == 2 and trainer.rollouts_done == 4
    whole = build(**{**CUT, "max_approx_kl": None})
    whole.train()
    assert column(whole, "steps") == [8] * 4


def test_logged_means_are_over_the_steps_that_were_made(build):
    trainer = build(**CUT)
    trainer.train()
    for row in rows(trainer):
        assert row["loss"] == pytest.approx(row["policy_loss"] + 0.1 * row["value_loss"], abs=1e-4)
        assert row["ratio"] == pytest.approx(1.0, abs=0.2)


# ---- Kill and resume


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
    assert whole.completions == resumed.completions and whole.kl_coef == resumed.kl_coef
    assert whole.state.global_step == resumed.state.global_step


RESUMABLE = {"total_rollouts": 4, "eval_rollouts": 1, "save_rollouts": 1}
ADAPTIVE = {"kl_target": 0.02, "kl_horizon": 40.0}


@pytest.mark.parametrize("critic", [{"critic": "separate"}, {"critic": "lora", "lora_r": 4}], ids=["separate", "lora"])
def test_a_killed_run_goes_on_to_the_same_weights_and_log(build, checkpoints, critic):
    killer = KillAt(10)  # within the third rollout, of steps 9 to 12
    changes = {**RESUMABLE, **ADAPTIVE, **critic, "scale_rewards": True, "ptx_coef": 0.1, "critic_learning_rate": 2e-3}
    whole, resumed = whole_and_resumed(build, checkpoints, killer, **changes)
    assert_same_run(whole, resumed)
    assert len(rows(whole)) == 4 and len(set(column(whole, "kl_coef"))) == 4 and len(whole.completions) == 5 * 2 * 2
    assert resumed.lr_scheduler.last_epoch == 16
    assert vars(whole.score_moments) == vars(resumed.score_moments) and whole.score_moments.count == 32


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
    assert len(resumed.completions) > 0


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


def test_a_run_is_logged_to_tensorboard(build, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    build(report_to=["tensorboard"], total_rollouts=1).train()
    assert list((tmp_path / "board").rglob("events.out.tfevents.*"))
