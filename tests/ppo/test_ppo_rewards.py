"""The rewards and scores of PPO, and the coefficient of its KL."""

import pytest
import torch
from ppo_runs import CONSTANT, by_length, contains_e, texts
from ppo_trainers import EVAL_ROWS, TRAIN_ROWS
from trained import column, rows

from rlhf_lib.models.chat import prompt_ids
from rlhf_lib.ppo.algos import adapt_kl_coef


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
    assert columns.pop("completion_ids") == [response.ids for response in rollout.responses]
    assert columns.pop("trainer_state").global_step == 0
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
    trainer, seen = build(functions={"by_length": by_length}, scale_rewards="running", reward_clip=1.5), []
    for index in range(3):
        rollout = trainer.sample(index)
        rewards = torch.tensor([float(len(answer)) for answer in texts(trainer, rollout)])
        seen.append(rewards)
        std = torch.cat(seen).std(correction=0)
        torch.testing.assert_close(rollout.scores, (rewards / std).clamp(-1.5, 1.5))
    assert rollout.scores.max() == 1.5 and rollout.scores.min() < 1.5


def test_the_kl_in_the_loss_weighs_what_is_logged(build):
    """The coefficient is adapted after the rollout whose KL it follows, not before its updates."""
    adaptive = {"kl_target": 0.02, "kl_horizon": 40.0, "kl_in": "loss", "kl_estimator": "k2", "learning_rate": 3e-3}
    trainer, used = build(total_rollouts=3, **CONSTANT, **adaptive), []

    def compute_loss(*args, **kwargs):
        used.append(trainer.ppo_state.kl_coef)
        return type(trainer).compute_loss(trainer, *args, **kwargs)

    trainer.compute_loss = compute_loss
    trainer.train()
    coefficients = column(trainer, "kl_coef")
    assert used == [coefficient for coefficient in coefficients for _ in range(len(used) // 3)]
    assert coefficients[:2] == pytest.approx([0.1, 0.096]) and coefficients[2] != coefficients[1]
    assert trainer.ppo_state.kl_coef != coefficients[2]


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
