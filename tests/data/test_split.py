from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_rows import PARAMS, ROLES, places, row, run, source, user

from rlhf_lib.common.rows import normalise
from rlhf_lib.data.prepare.params import MixtureParams
from rlhf_lib.data.prepare.split import digest, quota, split_of

ALL = set(ROLES)
KEYS = [digest(f"user question {number}", 0) for number in range(4000)]
SHARED = replace(PARAMS, sft_share=None, preference_share=0.7)
OWN_REWARD = replace(PARAMS, sft_share=0.3, reward_share=0.2, preference_share=0.2)


def splits(roles=ALL, params=PARAMS, test=False):
    return [split_of(key, set(roles), test, params) for key in KEYS]


def key_of(text, seed=0):
    return digest(normalise(user(text)), seed)


@pytest.mark.parametrize(
    ("roles", "params", "wanted"),
    [
        (ALL, PARAMS, {"sft": 0.35, "preference": 0.35, "judge": 0.1, "test": 0.2}),
        (ALL, OWN_REWARD, {"sft": 0.3, "reward": 0.2, "preference": 0.2, "judge": 0.1, "test": 0.2}),
        (ALL, SHARED, {"preference": 0.7, "judge": 0.1, "test": 0.2}),
        (ALL, replace(PARAMS, test_share=0.0, sft_share=0.55), {"sft": 0.55, "preference": 0.35, "judge": 0.1}),
        (["sft"], OWN_REWARD, {"sft": 1.0}),
        (["sft"], SHARED, {"preference": 1.0}),
        (["prompts"], OWN_REWARD, {"preference": 1.0}),
        (["sft", "prompts"], OWN_REWARD, {"sft": 0.6, "preference": 0.4}),
        (["preference"], OWN_REWARD, {"reward": 0.32, "preference": 0.32, "judge": 0.16, "test": 0.2}),
        (
            ["preference"],
            replace(PARAMS, judge_share=0.35, sft_share=0.1),
            {"preference": 0.4, "judge": 0.4, "test": 0.2},
        ),
        (["preference", "prompts"], SHARED, {"preference": 0.7, "judge": 0.1, "test": 0.2}),
    ],
)
def test_shares(roles, params, wanted):
    found = Counter(splits(roles, params))
    expected = {"test": wanted.pop("test")} if "test" in wanted else {}
    for part, share in wanted.items():
        expected |= {f"{part}_train": 0.7 * share, f"{part}_validation": 0.3 * share}
    assert {name: count / len(KEYS) for name, count in found.items()} == pytest.approx(expected, abs=0.03)


def test_other_shares_of_the_parts_move_no_prompt_into_or_out_of_test_or_validation():
    before, after = splits(), splits(params=replace(OWN_REWARD, sft_share=0.1, preference_share=0.2, judge_share=0.3))
    assert [name.partition("_")[2] for name in before] == [name.partition("_")[2] for name in after]
    more = splits(params=replace(PARAMS, validation_share=0.4))
    assert all(
        a == b or (a.endswith("_train") and b.endswith("_validation")) for a, b in zip(before, more, strict=True)
    )
    larger = splits(params=replace(PARAMS, test_share=0.3, sft_share=0.3, preference_share=0.3))
    assert all(b == "test" for a, b in zip(before, larger, strict=True) if a == "test")


def test_another_seed_is_another_split():
    assert splits() != [split_of(key_of(f"question {n}", 1), ALL, False, PARAMS) for n in range(len(KEYS))]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (ALL, {"test"}),
        (["preference"], {"test"}),
        (["sft"], {"sft_validation"}),
        (["prompts"], {"preference_validation"}),
        (["sft", "prompts"], {"sft_validation", "preference_validation"}),
    ],
)
def test_rows_that_upstream_tests_on_are_never_trained_on(roles, expected):
    assert set(splits(roles, test=True)) == expected


def test_upstream_test_rows_may_be_taken_for_any_other():
    rows = [row(f"question {n}", test=True) for n in range(40)]
    assert {name for name, records in run(rows).files.items() if records} == {"test"}
    taken = run(rows, replace(PARAMS, upstream_test=False))
    assert taken.tally.splits == run([row(f"question {n}") for n in range(40)]).tally.splits
    assert taken.files["sft_train"]


# ---- mixtures


def cap(rows):
    return MixtureParams(max_rows=rows)


def weight(value):
    return MixtureParams(weight=value)


def share(value):
    return MixtureParams(share=value)


@pytest.mark.parametrize(
    ("counts", "mixture", "expected"),
    [
        ({"a": 100, "b": 50}, {}, {"a": 100, "b": 50}),
        ({"a": 100, "b": 50}, {"a": cap(30), "b": cap(70)}, {"a": 30, "b": 50}),
        ({"a": 100, "b": 90, "c": 7}, {"a": weight(1.0), "b": weight(3.0)}, {"a": 30, "b": 90, "c": 7}),
        ({"a": 100, "b": 100}, {"a": weight(0.1), "b": weight(0.3)}, {"a": 33, "b": 100}),
        ({"a": 100, "b": 90}, {"a": weight(5.0)}, {"a": 100, "b": 90}),
        ({"a": 40, "b": 100}, {"a": share(0.5)}, {"a": 40, "b": 40}),
        ({"a": 100, "b": 100}, {"a": share(0.3)}, {"a": 42, "b": 100}),
        ({"a": 100, "b": 100, "c": 10}, {"a": share(0.5), "b": share(0.3)}, {"a": 25, "b": 15, "c": 10}),
        ({"a": 100, "b": 30}, {"a": share(0.5), "b": share(0.5)}, {"a": 30, "b": 30}),
        (  # the weights give 30 and 60, the cap 10; the 50 are half of all, so each of the others is halved
            {"a": 60, "b": 60, "c": 99, "d": 50},
            {"a": weight(1.0), "b": weight(2.0), "c": cap(10), "d": share(0.5)},
            {"a": 15, "b": 30, "c": 5, "d": 50},
        ),
        # what cannot be: all but nothing is left for c; no other source makes up the rest; no rows of a
        ({"a": 100, "b": 100, "c": 50}, {"a": share(0.5), "b": share(0.5)}, {"a": 100, "b": 100, "c": 0}),
        ({"a": 100, "b": 60}, {"a": share(0.3), "b": share(0.3)}, {"a": 60, "b": 60}),
        ({"b": 60}, {"a": weight(1.0), "b": weight(1.0)}, {"b": 60}),
        ({"b": 60}, {"a": share(0.5)}, {"b": 60}),
        ({"a": 3, "b": 99}, {"a": weight(99.0), "b": weight(0.1)}, {"a": 3, "b": 0}),
        ({}, {"a": share(0.5)}, {}),
    ],
)
def test_quotas_by_hand(counts, mixture, expected):
    assert quota(counts, mixture) == expected


ENTRIES = st.one_of(
    st.just(MixtureParams()),
    st.integers(1, 50).map(cap),
    st.sampled_from([0.5, 1.0, 3.0]).map(weight),
    st.sampled_from([0.05, 0.1, 0.2]).map(share),
)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=4), st.lists(ENTRIES, min_size=4, max_size=4))
def test_quotas_keep_the_proportions(sizes, entries):
    counts = dict(zip("abcd", sizes, strict=False))
    mixture = dict(zip(counts, entries, strict=False))
    found = quota(counts, mixture)
    assert all(0 <= found[name] <= min(counts[name], mixture[name].max_rows or 999) for name in counts)
    units = [found[name] / entry.weight for name, entry in mixture.items() if entry.weight]
    assert not units or max(units) - min(units) <= 1 / 0.5 + 1e-6  # each is rounded down
    if any(entry.share is None for entry in mixture.values()):
        for name, entry in mixture.items():
            assert not entry.share or abs(found[name] - entry.share * sum(found.values())) <= len(counts)


def test_a_larger_quota_adds_rows_and_moves_none():
    rows = [row(f"question {n}") for n in range(240)]
    whole, small, large = (
        places(run(rows, replace(PARAMS, mixture=mixture)).files) for mixture in ({}, {"s": cap(80)}, {"s": cap(160)})
    )
    assert (len(small), len(large), len(whole)) == (80, 160, 240)
    assert small.items() <= large.items() <= whole.items()


def test_a_mixture_takes_from_each_part_alike():
    taken = run([row(f"question {n}") for n in range(2000)], replace(PARAMS, mixture={"s": cap(500)})).tally.splits
    shares = {"sft_train": 0.245, "sft_validation": 0.105, "test": 0.2}
    shares |= {"preference_train": 0.245, "preference_validation": 0.105}
    shares |= {"judge_train": 0.07, "judge_validation": 0.03}
    assert {name: count / 500 for name, count in taken.items()} == pytest.approx(shares, abs=0.06)


# ---- one split for what is the same


def test_of_the_rows_of_one_prompt_the_first_is_kept():
    done = run([row("Is it so?"), row("is IT so", ("other", 1.0)), row("Is it not so?")])
    assert done.tally.dropped_rows == {"duplicate_prompt": {"s": 1}}
    assert done.tally.rows_kept == {"s": 2}
    assert [(line["reason"], line["text"]) for line in done.log] == [("duplicate_prompt", "is IT so")]


def test_rows_of_one_prompt_are_merged_where_the_source_says_so():
    rows = [
        row("Is it so?", ("a", 5.0), ("b", 1.0)),
        row("is it SO", ("b", 9.0), ("c", 2.0)),
        row("Is it so", ("c", 3.0)),
    ]
    done = run(rows, PARAMS, source(merges=True, score_range=(1.0, 5.0)))
    (record,) = done.files["test"] + done.files["groups_train"] + done.files["groups_validation"]
    merged = {response["content"]: (response["score"], response["target"]) for response in record["responses"]}
    assert merged == {"a": (5.0, 1.0), "b": (5.0, 1.0), "c": (2.5, 0.375)}  # means of 1 and 9, and of 2 and 3
    assert done.tally.dropped_rows == {"merged": {"s": 2}}
    assert done.log == []


def merged(*rows, labels=True):
    """What rows of one source were dropped as, in their order."""
    return [entry.dropped for entry in run(rows, PARAMS, source(merges=True, labels=labels)).entries]


def test_labelled_pairs_are_not_merged_and_single_answers_beside_them_are():
    pair, other = row("Is it?", ("a", 1.0), ("b", 0.0)), row("Is it?", ("c", 1.0), ("d", 0.0))
    singles = [row("Is she?", ("e", 1.0)), row("Is she?", ("f", 0.0)), row("Is she?", ("g", 0.0))]
    assert merged(pair, other, *singles) == [None, "duplicate_prompt", None, "merged", "merged"]
    assert merged(pair, row("Is it?", ("e", 1.0))) == [None, "duplicate_prompt"]
    assert merged(pair, other, labels=False) == [None, "merged"]


def test_what_is_left_of_two_labelled_pairs_is_not_compared():
    """Of each pair one answer was dropped, as empty."""
    pairs = row("Is it?", ("a", 1.0), ("", 0.0)), row("Is it?", ("", 1.0), ("b", 0.0))
    assert merged(*pairs) == [None, "duplicate_prompt"]


def test_a_prompt_of_two_sources_is_that_of_the_first_source():
    sources = source("first", 0, merges=True), source("second", 1, merges=True)
    rows = [row("Is it?", ("b", 1.0), source="second/part"), row("is it", ("a", 1.0), source="first/part")]
    done = run(rows, PARAMS, *sources)
    assert done.tally.dropped_rows == {"duplicate_prompt": {"second/part": 1}}
    assert {record["source"] for records in done.files.values() for record in records} == {"first/part"}


@pytest.mark.parametrize("test_first", [True, False])
def test_a_prompt_that_any_row_tests_on_is_for_tests(test_first):
    rows = [row("Is it?", source="a", test=test_first), row("is it", source="b", test=not test_first)]
    assert places(run(rows, PARAMS, source("a", 0), source("b", 1)).files) == {"user is it": {"test"}}
    sft_first = run(rows, PARAMS, source("a", 0, ["sft"]), source("b", 1))
    assert places(sft_first.files) == {"user is it": {"test"}}


# ---- two designs of others, by params alone


def designed(params):
    rows = [row(f"question {n}", ("a", 9.0), ("b", 6.0), ("c", 5.0), ("d", 2.0)) for n in range(600)]
    done = run(rows, params)
    return done, {name: {normalise(record["prompt"]) for record in records} for name, records in done.files.items()}


def test_a_part_of_the_prompts_for_each_stage():
    """A tenth each for SFT, the reward model and the judge, the rest for PPO and DPO; best against worst."""
    test = 0.05
    params = replace(
        PARAMS,
        sft_share=0.1 * (1 - test),
        reward_share=0.1 * (1 - test),
        preference_share=0.7 * (1 - test),
        judge_share=0.1 * (1 - test),
        test_share=test,
        validation_share=0.2,
        pair_rule="best_vs_worst",
        target_range=[1.0, 5.0],
    )
    done, prompts = designed(params)
    names = ("sft", "reward", "preference", "judge")
    parts = {part: prompts[f"{part}_train"] | prompts[f"{part}_validation"] for part in names}
    sizes = {part: len(found) for part, found in parts.items()}
    whole = sum(sizes.values())
    assert len(set.union(*parts.values())) == whole == 600 - len(prompts["test"])
    assert {part: size / whole for part, size in sizes.items()} == pytest.approx(
        {"sft": 0.1, "reward": 0.1, "preference": 0.7, "judge": 0.1}, abs=0.04
    )
    assert prompts["groups_train"] == prompts["reward_train"]
    assert prompts["prompts_train"] == prompts["preference_train"]
    assert {(pair["score_chosen"], pair["score_rejected"]) for pair in done.files["preference_train"]} == {(9.0, 2.0)}
    assert {response["target"] for record in done.files["groups_train"] for response in record["responses"]} == {
        5.0,
        3.285714,
        2.714286,
        1.0,
    }


def test_the_same_prompts_for_all_stages():
    """Every prompt for SFT, the reward model, PPO and DPO; at most two pairs, and each response in one."""
    params = replace(
        PARAMS,
        sft_share=None,
        preference_share=0.8,
        test_share=0.1,
        validation_share=0.2,
        pair_rule="disjoint",
        min_score_gap=1.0,
    )
    done, prompts = designed(params)
    for half in ("train", "validation"):
        assert prompts[f"sft_{half}"] == prompts[f"preference_{half}"] == prompts[f"prompts_{half}"]
        assert done.files[f"reward_{half}"] == done.files[f"preference_{half}"]
        assert len(done.files[f"preference_{half}"]) == 2 * len(prompts[f"preference_{half}"])
    held = prompts["sft_validation"] | prompts["judge_train"] | prompts["judge_validation"] | prompts["test"]
    assert not prompts["sft_train"] & held and done.files["judge_train"]
