"""Which candidates are learnt from, by hand."""

from collections import Counter

import pytest
from one_line import told

from rlhf_lib.rft.selection import at_random, choose


def candidates(key, *rewards, **changes):
    """A prompt's candidates of such rewards; `changes` are of the first."""
    found = [
        {"id": key, "source": "s", "prompt": [{"role": "user", "content": f"{key}?"}], "draw": draw, "length": 3}
        | {"response": f"{key}{draw}", "finished": True, "reward": reward}
        for draw, reward in enumerate(rewards)
    ]
    found[0] |= changes
    return found


def chosen(rows):
    return [(row["id"], row["draw"], row["reward"]) for row in rows]


def test_the_best_of_the_first_n_of_each_prompt_is_chosen():
    rows, numbers = choose([*candidates("a", 0.5, 1.5, -1.0, 9.0), *candidates("b", -2.0, -3.0, -4.0, -1.0)], 3)
    assert chosen(rows) == [("a", 1, 1.5), ("b", 0, -2.0)]
    assert rows[0]["prompt"] == [{"role": "user", "content": "a?"}]
    assert rows[0]["completion"] == [{"role": "assistant", "content": "a1"}]
    assert numbers["prompts_without"] == 0
    assert numbers["reward_chosen"] == pytest.approx((1.5 - 2.0) / 2)
    assert numbers["reward_candidates"] == pytest.approx((1.0 / 3 - 9.0 / 3) / 2)


def test_of_equals_the_first_is_chosen():
    assert chosen(choose(candidates("a", 0.0, 2.0, 2.0, 2.0), 4)[0]) == [("a", 1, 2.0)]


@pytest.mark.parametrize("changes", [{"finished": False}, {"response": " \n"}])
def test_what_is_cut_off_or_blank_is_not_chosen(changes):
    best_is_unusable = candidates("a", 5.0, 1.0, 2.0, **changes)
    rows, numbers = choose(best_is_unusable, 3)
    assert chosen(rows) == [("a", 2, 2.0)]
    assert numbers == {"prompts_without": 0, "reward_chosen": 2.0, "reward_candidates": 1.5}
    assert {row["draw"] for seed in range(30) for row in choose(best_is_unusable, 3, seed)[0]} == {1, 2}


def test_a_prompt_without_a_usable_candidate_gives_no_row():
    cut = [{**one, "finished": False} for one in candidates("a", 5.0, 6.0)]
    rows, numbers = choose([*cut, *candidates("b", 1.0, 3.0)], 2)
    assert chosen(rows) == [("b", 1, 3.0)]
    assert numbers == {"prompts_without": 1, "reward_chosen": 3.0, "reward_candidates": 2.0}
    assert choose(cut, 2) == ([], {"prompts_without": 1, "reward_chosen": None, "reward_candidates": None})


def test_at_random_each_is_as_likely_whatever_its_reward():
    """Within four standard deviations of a fair draw from 3000 prompts: 1000 ± 4 × sqrt(3000 × 1/3 × 2/3)."""
    counts = Counter(at_random(candidates(f"p{number}", 9.0, 0.0, -9.0), 0)["draw"] for number in range(3000))
    assert sorted(counts) == [0, 1, 2] and all(abs(count - 1000) < 104 for count in counts.values())


def test_the_random_choice_depends_on_prompt_and_seed_alone():
    prompts = [candidates(f"p{number}", 9.0, 0.0, -9.0) for number in range(40)]
    draws = [choose([one for prompt in prompts for one in prompt], 3, seed)[0] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] and draws[0] != draws[2]
    assert choose(prompts[7], 3, 0)[0] == [draws[0][7]]


def test_more_than_there_are_is_told():
    assert told(choose, candidates("a", 1.0, 2.0), 3) == (
        "params.yaml: rft.n: 3 answers are to be chosen from, and data/candidates has 2; raise candidates.n, and run "
        "dvc repro candidates"
    )
