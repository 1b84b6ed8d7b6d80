"""Few prompts: no file stays empty while another can spare a prompt, and what is too small is said."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_rows import PARAMS, row, run, source

from rlhf_lib.data.prepare import sizes
from rlhf_lib.data.prepare.records import FILES, recipes
from rlhf_lib.data.prepare.roles import settle
from rlhf_lib.data.prepare.split import split_of

LOCAL = replace(
    PARAMS,
    sft_share=0.38,
    preference_share=0.38,
    judge_share=0.16,
    test_share=0.08,
    validation_share=0.1,
    pair_rule="best_vs_worst",
    min_score_gap=0.5,
    sft_responses="best",
)
SCORED = ("good", 8.0), ("fair", 5.0), ("bad", 2.0)


def questions(count, *scored, start=0):
    return [row(f"how is thing {number}", *(scored or SCORED)) for number in range(start, start + count)]


def report(done, params=PARAMS, *sources):
    infos = settle(sources or [source()], params)
    return done.tally.report(params, recipes(infos, done.entries, params), {})


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [7, 10, 20])
def test_no_file_of_a_few_prompts_is_empty(count, seed):
    done = run(questions(count), replace(LOCAL, seed=seed))
    assert [name for name, records in done.files.items() if not records] == []


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_split_spares_a_prompt(seed):
    params = replace(LOCAL, sft_share=0.7, preference_share=0.2, judge_share=0.02, seed=seed)
    entries = run(questions(30), params).entries
    given = {entry.key: split_of(entry.key, {*entry.roles}, False, params) for entry in entries}
    assert {given[entry.key] for entry in entries if entry.split != given[entry.key]} == {"sft_train"}


def test_what_learns_and_the_test_come_before_validation():
    done = run(questions(4), LOCAL)
    assert Counter(bool(done.files[name]) for name in FILES if name.endswith(("_train", "test"))) == {True: 8}
    assert done.tally.fault(LOCAL, ["sft", "reward", "dpo", "kto", "judge", "prompts"]) is None
    assert "goes without validation" in " ".join(sizes.remarks(report(done, LOCAL)))


def test_prompts_without_a_pair_are_not_moved_where_pairs_are_wanted():
    ties = questions(30, ("a", 5.0), ("b", 5.0), start=100)
    done = run([*ties, *questions(7)], LOCAL)
    assert [name for name, records in done.files.items() if not records] == []
    assert all(pair["score_chosen"] == 8.0 for pair in done.files["judge_validation"])


@pytest.mark.parametrize("bad", [("no", 0.0), ("yes", 0.0)])
def test_rejected_answers_alone_are_not_moved_where_answers_to_learn_from_are_wanted(bad):
    labelled = replace(LOCAL, sft_share=0.01, preference_share=0.83, test_share=0.0, min_score_gap=0.0)
    useless, useful = questions(30, bad, start=100), questions(3, ("good", 1.0), ("bad", 0.0))
    done = run([*useless, *useful], labelled, source(labels=True))
    assert {record["completion"][0]["content"] for record in done.files["sft_train"]} == {"good"}


@pytest.mark.parametrize("seed", range(5))
def test_of_a_few_thumbs_one_is_for_validation(seed):
    """An answer alone with its label is no pair, and a thumb all the same."""
    done = run(questions(6, ("good", 1.0)), replace(LOCAL, seed=seed), source(labels=True, roles=["kto"]))
    assert done.files["thumbs_train"] and done.files["thumbs_validation"]


def test_an_answer_without_a_score_is_learnt_from_beside_one_with_too_low_a_score():
    strict = replace(LOCAL, sft_responses="above_score", sft_min_score=7.0)
    done = run(questions(7, ("low", 2.0), ("written", None)), strict)
    assert {record["completion"][0]["content"] for record in done.files["sft_train"]} == {"written"}


@given(st.integers(7, 40), st.integers(0, 50), st.randoms(use_true_random=False))
def test_which_prompts_move_depends_on_no_order(count, seed, shuffler):
    given_rows = questions(count)
    params = replace(LOCAL, seed=seed)
    one, other = (run(rows, params) for rows in (given_rows, shuffler.sample(given_rows, count)))
    assert {e.key: e.split for e in one.entries} == {e.key: e.split for e in other.entries}


def test_nothing_moves_where_no_file_is_empty():
    done = run(questions(600), LOCAL)
    assert all(entry.split == split_of(entry.key, {*entry.roles}, False, LOCAL) for entry in done.entries)


def test_test_rows_of_upstream_stay():
    rows = [{**one, "split": "test"} for one in questions(12)]
    assert {entry.split for entry in run(rows, LOCAL).entries} == {"test"}


# ---- what is said


def test_the_remarks_on_twenty_prompts():
    done = run(questions(20), LOCAL)
    held = {name: done.tally.files[name].prompts for name in FILES if not name.endswith("_train")}
    (told,) = sizes.remarks(report(done, LOCAL))
    assert told.startswith("fewer than 30 prompts in sft_validation ") and told.endswith(": too few to tell")
    assert all(f"{name} {count}" in told for name, count in held.items() if not name.startswith(("groups", "thumbs")))


def test_nothing_is_remarked_on_many_prompts():
    done = run(questions(1500), replace(PARAMS, judge_share=0.2, preference_share=0.25))
    assert list(sizes.remarks(report(done, replace(PARAMS, judge_share=0.2, preference_share=0.25)))) == []


def test_the_stages_that_nothing_is_for_are_told_with_the_reason():
    sources = [source(roles=["sft", "prompts"])]
    done = run(questions(1000, ("a", None)), PARAMS, *sources)
    assert list(sizes.remarks(report(done, PARAMS, *sources))) == [
        "left out: reward, judge, dpo, kto: no source gives preferences; ppo, rft, rft_random: no source gives prompts "
        "for PPO"
    ]


def test_pairs_for_dpo_alone_are_not_called_thumbs():
    """KTO learns from them as thumbs, but that is not why the others have none."""
    sources = [source(roles=["dpo"])]
    done = run(questions(1000), PARAMS, *sources)
    told = next(sizes.remarks(report(done, PARAMS, *sources)))
    assert told.startswith("left out: sft: no source gives answers to learn from; reward, judge: no source gives pref")


def test_a_source_whose_prompts_another_has_is_named():
    twice = [{**one, "source": "t"} for one in questions(40)]
    sources = [source(), source("t", 1)]
    done = run([*questions(400), *twice], PARAMS, *sources)
    assert next(sizes.remarks(report(done, PARAMS, *sources))).startswith("t: 40 of 40 rows repeat a prompt")


def test_how_many_prompts_are_needed():
    # test: 30 / .08 = 375; sft: 30 / (.38 * .1) = 789.5; judge: 30 / (.16 * .1) = 1875; each to two digits, upwards
    parts = dict.fromkeys(("sft", "reward", "preference", "prompts"), 790) | {"judge": 1900}
    expected = {f"{part}_validation": count for part, count in parts.items()} | {"test": 380}
    assert sizes.needed(report(run(questions(20), LOCAL), LOCAL), LOCAL) == expected


def test_how_many_prompts_are_needed_of_two_sources():
    """Half of the prompts are for SFT alone: a tenth of those, and none for the test."""
    params = replace(LOCAL, sft_share=None, preference_share=0.76)
    sources = [source(roles=["preference"]), source("t", 1, ["sft"])]
    given_rows = [*questions(50), *({**one, "source": "t"} for one in questions(50, ("a", None), start=50))]
    found = sizes.needed(report(run(given_rows, params, *sources), params, *sources), params)
    assert found == {
        "test": 750,  # 30 / (.08 / 2)
        "reward_validation": 790,  # 30 / (.76 * .1 / 2)
        "preference_validation": 790,
        "sft_validation": 600,  # 30 / (.1 / 2)
        "judge_validation": 3800,
    }
