from dataclasses import replace

import pytest
from small_rows import FRENCH, PARAMS, ROLES, row, run, source

from rlhf_lib.common.rows import normalise
from rlhf_lib.data.prepare.params import MixtureParams
from rlhf_lib.data.prepare.records import FILES, recipes
from rlhf_lib.data.prepare.roles import check_mixture

SHARED = replace(PARAMS, sft_share=None, preference_share=0.7)


def rows(*scored, count=60, source="s"):
    return [row(f"question {number} of {source}", *scored, source=source) for number in range(count)]


USES = ("sft", "reward", "dpo", "kto", "judge", "prompts")


def both(done, name):
    """The records of a file's two halves."""
    return done.files[f"{name}_train"] + done.files[f"{name}_validation"]


def said(records, key="completion"):
    return {record[key][0]["content"] for record in records}


def targets(done):
    """The target of each response of each prompt."""
    return {
        (normalise(record["prompt"]), response["content"]): response["target"]
        for record in both(done, "groups") + done.files["test"]
        for response in record["responses"]
    }


def test_records_of_each_file():
    sources = source("a"), source("b", 1)
    scored = ("a", 9.0), ("b", 5.0), ("c", 1.0)
    done = run([r for name in "ab" for r in rows(*scored, count=60, source=name)], PARAMS, *sources)
    assert tuple(done.files) == FILES and all(done.files.values())
    head = {"id", "source", "prompt"}
    pair = head | {"chosen", "rejected", "score_chosen", "score_rejected"}
    thumb = head | {"completion", "label"}
    keys = {"sft": head | {"completion"}, "reward": pair, "preference": pair, "prompts": head, "judge": pair}
    keys["thumbs"] = thumb
    for name, records in done.files.items():
        assert {*records[0]} == keys.get(name.partition("_")[0], head | {"responses"})
        assert len({record["id"] for record in records}) == len(records)
        assert [record["source"] for record in records] == sorted(record["source"] for record in records)
    assert done.files["preference_train"][0]["chosen"] == [{"role": "assistant", "content": "a"}]
    assert [*done.files["test"][0]["responses"][2].items()] == [("content", "c"), ("score", 1.0), ("target", 0.0)]
    summary = done.tally.files["preference_train"].summary()
    assert summary["rows"] == 3 * summary["prompts"] == summary["rows_by_source"].total()
    assert summary["mean_score_gap"] == pytest.approx((4 + 8 + 4) / 3)


@pytest.mark.parametrize(
    ("roles", "filled"),
    [
        (["sft"], {"sft", "test"}),
        (["prompts"], {"prompts", "test"}),
        (["preference"], {"reward", "groups", "preference", "thumbs", "judge", "test"}),
        (["preference", "prompts"], {"reward", "groups", "preference", "thumbs", "judge", "test", "prompts"}),
        (ROLES, {"sft", "reward", "groups", "preference", "thumbs", "judge", "prompts", "test"}),
    ],
)
@pytest.mark.parametrize("by", ["reader", "mixture"])
def test_rows_are_used_for_the_roles_of_their_source(roles, filled, by):
    mixture = {} if by == "reader" else {"s": MixtureParams(roles=list(roles))}
    infos = source(roles=roles if by == "reader" else ROLES)
    done = run(rows(), replace(PARAMS, mixture=mixture), infos)
    assert {name.partition("_")[0] for name, records in done.files.items() if records} == filled
    assert done.tally.no_pair == {}


def test_prompts_without_a_pair_are_counted_and_those_of_ppo_are_kept():
    done = run(rows(("a", 5.0), ("b", 5.0)))
    assert both(done, "preference") == both(done, "reward") == both(done, "judge") == []
    held = len(both(done, "prompts"))
    assert held == len(both(done, "groups")) > 0
    of_judge = done.tally.splits["judge_train"] + done.tally.splits["judge_validation"]
    assert of_judge > 0 and done.tally.no_pair == {"tie": {"s": held + of_judge}}


def test_responses_without_a_score_are_for_sft_alone():
    done = run(rows(("a", None), ("b", 5.0), ("c", None)), replace(SHARED, sft_responses="all"))
    assert said(both(done, "sft")) == {"a", "b", "c"}
    assert {response["content"] for record in both(done, "groups") for response in record["responses"]} == {"b"}
    assert [[r["content"] for r in record["responses"]] for record in done.files["test"][:1]] == [["b"]]
    without = run(rows(("a", None)), SHARED)
    assert both(without, "groups") == []
    assert without.files["test"][0]["responses"] == [{"content": "a", "score": None, "target": None}]


LABELS = ("good", 1.0), ("bad", 0.0)


@pytest.mark.parametrize(
    ("which", "scored", "expected"),
    [
        ("all", LABELS, {"good"}),
        ("all", (("good", 1.0), ("bad", 0.0), ("fine", 1.0)), {"good", "fine"}),
        ("all", LABELS[1:], set()),
        ("all", (("a", None), ("b", None)), {"a", "b"}),
        ("best", LABELS, {"good"}),
        ("above_score", LABELS, {"good"}),
        ("best", LABELS[1:], set()),  # the preferred one was dropped: the other is not the best
        ("above_score", LABELS[1:], set()),
        ("best", (("a", None),), {"a"}),
    ],
)
def test_sft_on_labelled_responses(which, scored, expected):
    params = replace(PARAMS, sft_responses=which, sft_min_score=7.0)
    assert said(both(run(rows(*scored), params, source(labels=True)), "sft")) == expected


def test_the_gaps_and_ratios_of_scores_are_none_of_labels():
    params = replace(PARAMS, min_score_gap=2.0, min_score_ratio=3.0)
    assert both(run(rows(*LABELS), params, source(labels=True)), "preference")
    assert not both(run(rows(*LABELS), params), "preference")


@pytest.mark.parametrize(
    ("general", "own", "labels", "pairs"),
    [
        ({"min_score_gap": 3.0}, {}, False, False),
        ({"min_score_gap": 3.0}, {"min_score_gap": 2.0}, False, True),
        ({"min_score_gap": 3.0}, {"min_score_gap": 0.0}, False, True),
        ({}, {"min_score_gap": 3.0}, True, False),
        ({"min_score_ratio": 2.0}, {}, False, False),
        ({"min_score_ratio": 2.0}, {"min_score_ratio": 1.5}, False, True),
        ({}, {"min_score_ratio": 2.0}, True, False),
    ],
)
def test_a_source_may_have_a_gap_and_a_ratio_of_its_own(general, own, labels, pairs):
    params = replace(PARAMS, **general, mixture={"s": MixtureParams(**own)})
    assert bool(both(run(rows(("a", 5.0), ("b", 3.0)), params, source(labels=labels)), "preference")) is pairs


@pytest.mark.parametrize(
    ("own", "scale", "expected"),
    [
        (None, None, {"a": 1.0, "b": 0.5, "c": 0.0}),  # the scores that there are
        (None, (1.0, 9.0), {"a": 0.75, "b": 0.5, "c": 0.25}),
        ([-3.0, 13.0], (1.0, 9.0), {"a": 0.625, "b": 0.5, "c": 0.375}),
    ],
)
def test_the_range_of_the_scores_becomes_the_range_of_the_targets(own, scale, expected):
    params = replace(PARAMS, mixture={"s": MixtureParams(score_range=own)})
    for low, high in ([0.0, 1.0], [1.0, 5.0]):
        done = run(
            rows(("a", 7.0), ("b", 5.0), ("c", 3.0)),
            replace(params, target_range=[low, high]),
            source(score_range=scale),
        )
        found = {content: target for (_, content), target in targets(done).items()}
        assert found == pytest.approx({name: low + share * (high - low) for name, share in expected.items()})


def test_targets_hang_on_no_other_row_where_the_scale_is_known():
    every = [row(f"question {n}", ("a", float(n % 8)), ("b", n / 9)) for n in range(60)]
    whole = targets(run(every, PARAMS, source(score_range=(1.0, 10.0))))
    assert targets(run(every[::3], PARAMS, source(score_range=(1.0, 10.0)))).items() <= whole.items()


def test_the_scores_of_merged_rows_are_in_the_range_of_targets():
    every = rows(("a", 3.0), count=9) + rows(("b", 1.0), count=9) + rows(("c", 5.0), count=9)
    found = targets(run(every, PARAMS, source(merges=True)))
    assert {content: target for (_, content), target in found.items()} == {"a": 0.5, "b": 0.0, "c": 1.0}


def moved(every, done, names):
    """The rows, with other scores for the prompts of the named files."""
    held = {normalise(r["prompt"]) for name in names for r in done.files[name]}
    assert held
    return [row(r["prompt"], ("a", 99.0), ("b", -99.0)) if normalise(r["prompt"]) in held else r for r in every]


def test_held_out_rows_do_not_move_the_targets():
    every = rows(("a", 7.0), ("b", 3.0))
    before = run(every)
    after = run(moved(every, before, ("test", "groups_validation")))
    assert after.files["groups_train"] == before.files["groups_train"]
    assert targets(after) != targets(before)


@pytest.mark.parametrize("changes", [{}, {"sft_share": None, "preference_share": 0.7}])
def test_the_judges_rows_are_seen_by_no_other_file(changes):
    params = replace(PARAMS, **changes)
    every = rows(("a", 7.0), ("b", 3.0))
    before = run(every, params)
    judges = ("judge_train", "judge_validation")
    after = run(moved(every, before, judges), params)
    assert all((after.files[name] == before.files[name]) == (name not in judges) for name in FILES)


@pytest.mark.parametrize(
    ("count", "scored", "changes", "param"),
    [
        (
            60,
            (),
            {"sft_responses": "above_score", "sft_min_score": 9.5},
            "prepare.sft_min_score: no response in sft_train",
        ),
        (
            60,
            (),
            {"test_share": 0.0, "preference_share": 0.55},
            "prepare.test_share: none of 60 prompts fell into test",
        ),
        (1, (), {}, "prepare.preference_share: none of 1 prompts fell into reward_train; raise it, or load more rows"),
        (3, (), {}, "prepare.test_share: none of 3 prompts fell into test; raise it, or load more rows"),
        (60, (("a", 5.0), ("b", 4.0)), {"min_score_gap": 2.0}, "prepare.min_score_gap: no pair in reward_train"),
        (0, (), {}, "load.sources: no row of 0 is left (dropped: none)"),
        (0, (), {"minhash_threshold": 0.5}, "load.sources: no row of 0 is left (dropped: none)"),
        (9, (("a", 5.0), (" ", 4.0)), {"drop_patterns": ["question"]}, "prepare.drop_patterns: no row of 9 is left"),
        (60, (("a", None),), {}, "load.sources: no prompt of reward_train has two responses with different scores"),
        (60, (("a", 5.0), ("b", 5.0)), {}, "load.sources: no prompt of reward_train has two responses"),
    ],
)
def test_an_empty_file_names_the_param(count, scored, changes, param):
    params = replace(PARAMS, **changes)
    assert str(run(rows(*scored, count=count), params).tally.fault(params, USES)).startswith(param)


@pytest.mark.parametrize(("foreign", "matching", "param"), [(2, 1, "languages"), (1, 2, "drop_patterns")])
def test_where_no_row_is_left_the_commonest_reason_names_the_param(foreign, matching, param):
    params = replace(PARAMS, languages=["en"], drop_patterns=["number"])
    texts = [f"{FRENCH} {n}" for n in range(foreign)] + [f"Is this the number {n}?" for n in range(matching)]
    fault = str(run([row(text) for text in texts], params).tally.fault(params, USES))
    assert fault.startswith(f"prepare.{param}: no row of 3 is left")


def test_nothing_is_wrong_where_each_file_has_records():
    assert run(rows()).tally.fault(PARAMS, USES) is None


def test_the_report():
    params = replace(PARAMS, languages=["en"])
    every = [
        *rows(("a", 9.0), ("a ", 8.0), (FRENCH, 5.0), ("b", 1.0), count=40, source="s/part"),
        row(FRENCH, source="s/other"),
        row("Question 1 of s/part!", source="s/other"),
        row("And this?", source="t"),
    ]
    sources = source(roles=["sft", "preference"]), source("t", 1, ["prompts"], score_range=(0.0, 10.0))
    done = run(every, params, *sources)
    report = done.tally.report(params, recipes(sources, done.entries, params), {"malformed": {"s": 1}})
    assert (report["rows_in"], report["rows_kept"]) == (43, 41)
    assert report["sources"] == {
        "s": {"rows_in": 42, "rows_kept": 40, "roles": "sft preference", "score_range": [1.0, 9.0]},
        "t": {"rows_in": 1, "rows_kept": 1, "roles": "prompts", "score_range": [0.0, 10.0]},
    }
    assert report["rejected_by_load"] == {"malformed": {"s": 1}}
    assert report["dropped_rows"] == {"foreign_prompt": {"s/other": 1}, "duplicate_prompt": {"s/other": 1}}
    assert report["dropped_responses"] == {"duplicate_response": {"s/part": 40}, "foreign_response": {"s/part": 40}}
    assert report["language"] == {
        "confidence": 0.5,
        "kept": "en",
        "foreign_prompts": {"fr": 1},
        "foreign_responses": {"fr": 40},
    }
    assert [*report["splits"]] == [*FILES]


@pytest.mark.parametrize(
    ("mixture", "sources", "start"),
    [
        ({"x": {}}, [source()], "params.yaml: prepare.mixture.x: no source of that name; there are: s"),
        (
            {"s": {"roles": ["preference"]}},
            [source(roles=["sft", "prompts"])],
            "params.yaml: prepare.mixture.s.roles: the source cannot have the role preference; it can: sft, prompts, "
            "test",
        ),
        (
            {"s": {"roles": ["sft", "judge"]}},
            [source(roles=["sft"])],
            "params.yaml: prepare.mixture.s.roles: the source cannot have the role judge; it can: sft, test",
        ),
        (
            {"s": {"roles": ["prompts"]}},
            [source(roles=["preference"])],
            "params.yaml: prepare.mixture.s.roles: the source cannot have the role prompts; it can: preference, "
            "reward, dpo, judge, kto, test",
        ),
    ],
)
def test_a_mixture_that_cannot_be_had(mixture, sources, start):
    params = replace(PARAMS, mixture={name: MixtureParams(**fields) for name, fields in mixture.items()})
    with pytest.raises(SystemExit) as error:
        check_mixture(params, sources)
    assert str(error.value).startswith(start) and "\n" not in str(error.value)
