"""Candidates: which answers are drawn, with which rewards, and what a killed run keeps of them."""

import json
from pathlib import Path

import pytest
from rft_project import DRAWN, ROWS
from shipped_params import check, check_fault

from rlhf_lib.candidates.sampling import Candidates
from rlhf_lib.common.rows import clean_text
from rlhf_lib.models import loading as models
from rlhf_lib.scoring.reward_model import RewardModel


def drawn(name="log.jsonl", rows=ROWS, **changes):
    params = check("candidates", {**DRAWN, **changes})
    sft, tokenizer = models.load_policy("models/sft"), models.load_tokenizer("models/sft")
    return Candidates(params, sft, tokenizer, RewardModel.load("models/reward")).draw(rows, Path(name))


def without_rewards(candidates):
    return [{key: value for key, value in candidate.items() if key != "reward"} for candidate in candidates]


def test_each_prompt_has_its_answers_in_a_row_with_their_rewards(project):
    found = drawn()
    assert [(one["id"], one["draw"]) for one in found] == [(row["id"], k) for row in ROWS for k in range(4)]
    assert all(one["prompt"] == ROWS[i // 4]["prompt"] for i, one in enumerate(found))
    assert all(one["response"] == clean_text(one["response"]) for one in found)
    assert {one["finished"] for one in found} == {True, False}
    assert all(one["length"] == 12 for one in found if not one["finished"])
    model = RewardModel.load("models/reward")
    expected = model([one["prompt"] for one in found], [one["response"] for one in found])
    assert [one["reward"] for one in found] == pytest.approx(expected, abs=1e-5)


def test_an_answer_depends_on_the_prompt_and_the_seed_alone(project):
    expected = without_rewards(drawn())
    assert without_rewards(drawn("batches", per_device_eval_batch_size=64)) == expected
    assert without_rewards(drawn("backwards", ROWS[::-1])) == [
        one for row in ROWS[::-1] for one in expected if one["id"] == row["id"]
    ]
    assert without_rewards(drawn("seed", seed=1)) != expected


def test_the_first_of_more_answers_are_the_same(project):
    more = without_rewards(drawn("more", n=6))
    assert [one for one in more if one["draw"] < 4] == without_rewards(drawn())


def test_what_a_killed_run_saved_is_not_drawn_again(project, capsys):
    expected = drawn()
    content = Path("log.jsonl").read_bytes()
    first, second, *_ = content.splitlines(keepends=True)
    assert len(json.loads(first)) == 4  # prompts of four answers: eight batches of two
    marked = [[{**one, "response": "marked"} for one in of_prompt] for of_prompt in json.loads(first)]
    Path("log.jsonl").write_bytes(json.dumps(marked).encode() + b"\n" + second[: len(second) // 2])
    capsys.readouterr()
    assert drawn() == [one for of_prompt in marked for one in of_prompt] + expected[16:]
    assert capsys.readouterr().out == "resuming after 4 of 9 prompts\n"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"n": 1}, "n: must be at least 2"),
        ({"max_prompts": 0}, "max_prompts: must be at least 1"),
        ({"temperature": 0}, "temperature: must be above 0"),
        ({"top_p": 1.5}, "top_p: must be at most 1"),
        ({"max_new_tokens": 0}, "max_new_tokens: must be at least 1"),
    ],
)
def test_a_bad_param_is_told_in_one_line(changes, told):
    assert f"candidates.{told}" in check_fault("candidates", changes)
