"""What each source is used for: roles of single stages, of the test, and runs in which nothing gives preferences."""

import re
from dataclasses import replace

import pytest
from small_rows import PARAMS, ROLES, row, run, source

from rlhf_lib.common.rows import normalise
from rlhf_lib.data.prepare.params import MixtureParams
from rlhf_lib.data.prepare.roles import settle, split_shares

OWN_REWARD = replace(PARAMS, sft_share=0.3, reward_share=0.2, preference_share=0.2)


def rows(name, *scored, count=60):
    return [row(f"question {number} of {name}", *scored, source=name) for number in range(count)]


def mixture(params=PARAMS, **roles):
    return replace(params, mixture={name: MixtureParams(roles=list(given)) for name, given in roles.items()})


def filled(done, name="s"):
    """The files that have records of a source, without the half."""
    return {
        file.partition("_")[0]
        for file, records in done.files.items()
        if any(record["source"] == name for record in records)
    }


@pytest.mark.parametrize("params", [PARAMS, OWN_REWARD])
@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["reward"], {"reward", "groups", "test"}),
        (["dpo"], {"preference", "thumbs", "test"}),
        (["kto"], {"thumbs", "test"}),
        (["judge"], {"judge", "test"}),
        (["reward", "dpo"], {"reward", "groups", "preference", "thumbs", "test"}),
        (["dpo", "prompts"], {"preference", "thumbs", "prompts", "test"}),
        (["sft", "judge"], {"sft", "judge", "test"}),
    ],
)
def test_a_role_of_a_single_stage(params, roles, expected):
    assert filled(run(rows("s"), mixture(params, s=roles))) == expected


@pytest.mark.parametrize("params", [PARAMS, OWN_REWARD, replace(PARAMS, sft_share=None, preference_share=0.7)])
def test_preference_is_reward_dpo_and_judge_together(params):
    together, apart = (
        run(rows("s", count=200), mixture(params, s=["sft", *roles, "prompts"])).files
        for roles in (["preference"], ["judge", "reward", "dpo"])
    )
    assert together == apart == run(rows("s", count=200), params).files


def test_dpo_learns_from_one_source_and_the_reward_model_from_others():
    names = "abcd"
    sources = [source(name, rank) for rank, name in enumerate(names)]
    params = mixture(a=["dpo", "reward"], b=["reward"], c=["reward"], d=["sft", "reward", "judge"])
    files = run([r for name in names for r in rows(name)], params, *sources).files
    by = {file: {record["source"] for record in records} for file, records in files.items()}
    assert by["reward_train"] == by["groups_train"] == {*names}
    assert by["preference_train"] == by["preference_validation"] == {"a"}
    assert by["judge_train"] == by["sft_train"] == {"d"} and by["prompts_train"] == set()
    assert by["test"] == {*names}


# ---- the role test


def test_prompts_that_are_for_the_test_alone_are_all_there():
    given = [*rows("s"), *rows("p", ("a joke", None), count=9), *rows("q", count=1)]
    given[-1]["responses"] = []
    sources = source(), source("p", 1, ["sft", "prompts"]), source("q", 2, ["prompts"])
    done = run(given, mixture(p=["test"], q=["test"]), *sources)
    assert filled(done, "p") == filled(done, "q") == {"test"}
    tested = [record for record in done.files["test"] if record["source"] != "s"]
    assert [record["responses"] for record in tested] == [
        [{"content": "a joke", "score": None, "target": None}]
    ] * 9 + [[]]


def test_a_share_of_the_prompts_of_other_roles_can_be_for_the_test():
    sources = source(), source("p", 1, ["sft", "prompts"])
    given = [*rows("s", count=5), *rows("p", ("a joke", None), count=300)]
    plain, tested = run(given, mixture(p=["sft"]), *sources), run(given, mixture(p=["sft", "test"]), *sources)
    assert filled(plain, "p") == {"sft"} and filled(tested, "p") == {"sft", "test"}
    of_test = [record for record in tested.files["test"] if record["source"] == "p"]
    assert len(of_test) / 300 == pytest.approx(PARAMS.test_share, abs=0.06)


# ---- without preferences


def test_answers_alone_are_for_sft_and_its_test():
    done = run(rows("s", ("a", None), count=200), PARAMS, source(roles=["sft", "prompts"]))
    assert filled(done) == {"sft", "test"}
    assert len(done.files["test"]) / 200 == pytest.approx(PARAMS.test_share, abs=0.08)
    assert done.files["test"][0]["responses"] == [{"content": "a", "score": None, "target": None}]
    assert done.tally.fault(PARAMS, ["sft"]) is None


def test_answers_alone_give_prompts_where_the_mixture_says_so():
    params = mixture(s=["sft", "prompts"])
    done = run(rows("s", ("a", None)), params, source(roles=["sft", "prompts"]))
    assert filled(done) == {"sft", "prompts", "test"}


def test_prompts_alone():
    given = rows("s")
    for one in given:
        one["responses"] = []
    assert filled(run(given, PARAMS, source(roles=["prompts"]))) == {"prompts", "test"}


def test_preferences_without_demonstrations():
    done = run(rows("s"), mixture(s=["preference", "prompts"]))
    assert filled(done) == {"reward", "groups", "preference", "thumbs", "judge", "prompts", "test"}


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ([ROLES, ["sft", "prompts"]], [["sft", "preference", "prompts"], ["sft", "prompts"]]),
        ([["sft", "prompts"], ["prompts"]], [["sft", "test"], ["prompts"]]),
        ([["prompts"], ["prompts"]], [["prompts", "test"], ["prompts", "test"]]),
    ],
)
def test_the_roles_that_nobody_chose(roles, expected):
    sources = [source(name, rank, given) for rank, (name, given) in enumerate(zip("ab", roles, strict=True))]
    assert [list(info.roles) for info in settle(sources, PARAMS)] == expected


def test_the_shares_of_the_splits():
    found = split_shares(["sft", "preference"], PARAMS)
    assert sum(found.values()) == pytest.approx(1)
    assert found["test"] == pytest.approx(0.2)
    assert found["sft_validation"] == pytest.approx(0.35 * 0.3)
    assert found["judge_train"] == pytest.approx(0.1 * 0.7)
    assert split_shares(["sft"], PARAMS) == pytest.approx({"sft_train": 0.7, "sft_validation": 0.3})
    assert split_shares(["test"], PARAMS) == {"test": 1.0}


# ---- one prompt in two sources

DEMOS = rows("s", ("demo", None))
PAIRS = [{**row(f"question {number} of s", source="t")} for number in range(60)]


def test_a_prompt_of_two_sources_serves_each_of_them_in_what_the_other_does_not():
    params = mixture(s=["sft"], t=["preference", "prompts"])
    done = run([*DEMOS, *PAIRS], params, source(roles=["sft"]), source("t", 1))
    assert filled(done, "s") == {"sft"}
    assert filled(done, "t") == {"reward", "groups", "preference", "thumbs", "judge", "prompts", "test"}
    found = {}
    for name, records in done.files.items():
        half = re.sub("reward|groups|thumbs|prompts", "preference", name)
        for record in records:
            found.setdefault(normalise(record["prompt"]), set()).add(half)
    assert len(found) == 60 and all(len(splits) == 1 for splits in found.values())
    lost = done.tally.dropped_rows
    assert lost.keys() == {"split_of_another_role"} and sum(lost["split_of_another_role"].values()) == 60


def test_of_two_sources_of_one_prompt_the_first_has_the_roles_that_both_could_have():
    done = run([*DEMOS, *PAIRS], PARAMS, source(roles=["sft", "prompts"]), source("t", 1))
    assert filled(done, "s") == {"sft", "prompts"}
    assert filled(done, "t") == {"reward", "groups", "preference", "thumbs", "judge", "test"}
    other = run([*DEMOS, *PAIRS], PARAMS, source("t", 0), source("s", 1, roles=["sft", "prompts"]))
    assert filled(other, "s") == set() and other.tally.dropped_rows == {"duplicate_prompt": {"s": 60}}


def test_a_prompt_alone_takes_no_answers_from_an_earlier_source():
    asked = [{**one, "source": "t", "responses": []} for one in DEMOS]
    done = run([*DEMOS, *asked], mixture(s=["sft"]), source(roles=["sft"]), source("t", 1, ["prompts"]))
    assert filled(done, "s") == {"sft", "test"} and done.tally.dropped_rows == {"duplicate_prompt": {"t": 60}}


def test_a_prompt_that_is_for_the_test_is_in_no_training_of_a_later_source():
    done = run([*DEMOS, *PAIRS], mixture(s=["test"]), source(roles=["sft"]), source("t", 1))
    tested = {normalise(record["prompt"]) for record in done.files["test"]}
    trained = {normalise(r["prompt"]) for name, found in done.files.items() if name != "test" for r in found}
    assert len(tested) == 60 and not trained
