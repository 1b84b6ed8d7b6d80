"""PPO's evaluation while it trains."""

import ppo_trainers
import pytest
import torch
from ppo_runs import by_length
from ppo_trainers import EVAL_ROWS
from trained import rows, same, weights


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
    trainer.ppo_state.completions.clear()
    trainer.train()
    first, second, third = rows(trainer, "eval_reward")
    assert first == {**expected, "step": 0} and expected["eval_kl"] == expected["eval_greedy_kl"] == 0.0
    assert (second["step"], third["step"]) == (4, 8) and second["eval_kl"] != 0.0
    assert {row["kl"] for row in trainer.ppo_state.completions if row["rollout"] == 0} == {0.0}


def test_evaluation_takes_at_most_so_many_prompts(build):
    seen = []

    def reward(prompts, **columns):
        seen.append(prompts)
        return [1.0] * len(prompts)

    build(functions={"reward": reward}, max_eval_prompts=2).evaluate()
    assert seen == [[row["prompt"] for row in EVAL_ROWS[:2]]] * 2


def test_the_prompts_and_completions_of_an_evaluation_are_not_those_of_the_first_source(build, monkeypatch):
    """A file of prompts has one source after the other; the ids are hashes."""
    mixed = [
        {**EVAL_ROWS[i % 3], "id": f"{7 * i % 10}{i}", "source": "first" if i < 5 else "second"} for i in range(10)
    ]
    monkeypatch.setattr(ppo_trainers, "EVAL_ROWS", mixed)
    trainer = build(max_eval_prompts=6, num_completions_to_log=3)
    trainer.evaluate()
    lowest = sorted(row["id"] for row in mixed)
    assert [row["id"] for row in trainer.eval_prompts.rows] == [row["id"] for row in mixed if row["id"] in lowest[:6]]
    kept = [row for row in trainer.ppo_state.completions if row["mode"] == "sampled"]
    assert [row["id"] for row in kept] == [row["id"] for row in mixed if row["id"] in lowest[:3]]
    assert {row["source"] for row in kept} == {"first", "second"}


def test_completions_are_kept_in_the_number_asked_for(build):
    trainer = build(functions={"by_length": by_length}, eval_rollouts=1, num_completions_to_log=2)
    trainer.train()
    kept = trainer.ppo_state.completions
    assert [(row["rollout"], row["mode"]) for row in kept] == [
        (rollout, mode) for rollout in (0, 1, 2) for mode in ("sampled", "greedy") for _ in range(2)
    ]
    for name in ("id", "source", "prompt"):
        assert [row[name] for row in kept] == [row[name] for row in EVAL_ROWS[:2]] * 6
    assert all(row["reward"] == len(row["completion"]) for row in kept)
    assert any(row["kl"] != 0.0 for row in kept)
    none = build(num_completions_to_log=0, total_rollouts=1)
    none.train()
    assert none.ppo_state.completions == []
    every = build(num_completions_to_log=None, total_rollouts=1)
    every.train()
    assert [row["id"] for row in every.ppo_state.completions] == [row["id"] for row in EVAL_ROWS] * 4
