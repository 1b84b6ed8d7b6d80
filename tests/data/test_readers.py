import re
from typing import get_args

import pytest
from upstream import (
    H4,
    HH,
    HH_PROMPTS,
    RM_STATIC,
    SFT_STATIC,
    SHP,
    STACK_EXCHANGE,
    TEXTS,
    TRL,
    ULTRACHAT,
    ULTRAFEEDBACK,
    aspect,
    completion,
    dialogue,
    parse,
    row_of,
)

from rlhf_lib.data.load.params import ReaderName, SourceParams
from rlhf_lib.data.load.readers import READERS, score_range

FROM_CSV = {**TEXTS, "score_chosen": "8.5", "score_rejected": "3.5"}


@pytest.mark.parametrize(
    ("reader", "record", "source", "prompt", "responses"),
    [
        ("demo", ULTRAFEEDBACK, "demo/flan", ["Is it?"], [("Yes.", 7.0), ("No.", 2.5)]),
        ("ultrafeedback", ULTRAFEEDBACK, "ultrafeedback/flan", ["Is it?"], [("Yes.", 7.0), ("No.", 2.5)]),
        ("ultrafeedback_binarized", H4, "ultrafeedback_binarized", ["Q?"], [("A", 8.5), ("B", 3.5)]),
        ("ultrafeedback_binarized", TRL, "ultrafeedback_binarized", ["Q?"], [("A", 8.5), ("B", 3.5)]),
        ("ultrafeedback_binarized", TEXTS, "ultrafeedback_binarized", ["Q?"], [("A", 8.5), ("B", 3.5)]),
        ("ultrafeedback_binarized", FROM_CSV, "ultrafeedback_binarized", ["Q?"], [("A", 8.5), ("B", 3.5)]),
        ("ultrachat", ULTRACHAT, "ultrachat", ["Hi", "Hello", "Q?"], [("A", None)]),
        ("hh", HH, "hh", ["Hi", "Hello", "Q?"], [("A", 1.0), ("B", 0.0)]),
        ("hh_prompts", HH_PROMPTS, "hh_prompts", ["Q?"], []),
        ("shp", SHP, "shp/askculinary", ["Why salt?"], [("Habit.", 52.0), ("Taste.", 54.0)]),
        (
            "stack_exchange",
            STACK_EXCHANGE,
            "stack_exchange/math.stackexchange.com",
            ["Is `1 < 2`?"],
            [("Yes.", 2.0), ("No.", -1.0)],
        ),
        ("rm_static", RM_STATIC, "rm_static", ["Hi", "Hello", "Q?"], [("A", 1.0), ("B", 0.0)]),
        ("sft_static", SFT_STATIC, "sft_static", ["Hi", "Hello", "Q?"], [("A", None)]),
    ],
)
def test_a_record_as_upstream_has_it(reader, record, source, prompt, responses):
    assert row_of(reader, record) == (source, dialogue(*prompt), responses)


def test_rows_have_the_name_that_the_params_give():
    assert row_of("hh", HH, name="harmless")[0] == "harmless"
    assert row_of("shp", SHP, name="reddit")[0] == "reddit/askculinary"


def test_every_reader_of_the_params_is_there():
    assert set(READERS) == set(get_args(ReaderName))


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.hub])
def test_hub_revisions_are_commits(name):
    hub = READERS[name].hub
    assert hub.revision is None or re.fullmatch("[0-9a-f]{40}", hub.revision)
    assert not all(hub.splits.values())  # a split to train on


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"reader": "ultrafeedback"}, (1, 10)),
        ({"reader": "ultrafeedback", "score": "fine_grained"}, (1, 5)),
        ({"reader": "ultrafeedback", "score": "honesty"}, (1, 5)),
        ({"reader": "demo"}, (1, 10)),
        ({"reader": "ultrafeedback_binarized"}, (1, 10)),
        ({"reader": "shp"}, None),
        ({"reader": "hh"}, None),
    ],
)
def test_score_ranges(fields, expected):
    assert score_range(SourceParams(**fields)) == expected


# UltraFeedback
@pytest.mark.parametrize(
    ("score", "expected"),
    [("overall", 7.0), ("fine_grained", 4.25), ("helpfulness", 5.0), ("honesty", 3.0), ("truthfulness", 2.0)],
)
def test_ultrafeedback_scores(score, expected):
    assert row_of("ultrafeedback", {**ULTRAFEEDBACK, "completions": [completion()]}, score=score)[2] == [
        ("Yes.", expected)
    ]


def test_a_rating_may_be_a_number():
    record = {**ULTRAFEEDBACK, "completions": [completion(annotations={"honesty": aspect(4)})]}
    assert row_of("ultrafeedback", record, score="honesty")[2] == [("Yes.", 4.0)]


@pytest.mark.parametrize(
    "annotations",
    [
        {"honesty": aspect("N/A")},
        {"honesty": aspect("6")},
        {"honesty": aspect("")},
        {"honesty": aspect(None)},
        {"honesty": {}},
        {"honesty": "5"},
        {"honesty": None},
        {},
        None,
        [],
    ],
)
def test_ultrafeedback_responses_without_a_rating(annotations):
    record = {**ULTRAFEEDBACK, "completions": [completion("No.", annotations=annotations), completion()]}
    reasons, (row,) = parse("ultrafeedback", record, score="honesty")
    assert reasons == ["response_no_score"]
    assert [r["content"] for r in row["responses"]] == ["Yes."]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (completion(" \n"), "response_empty"),
        (completion("\u200b"), "response_empty"),
        (completion(overall=None), "response_no_score"),
        (completion(overall=float("nan")), "response_no_score"),
        (completion(overall="N/A"), "response_no_score"),
        (completion(overall=True), "response_no_score"),
        ({"response": "no score"}, "response_no_score"),
        (completion(overall=10, **{"fine-grained_score": 2.0}), "response_wrong_score"),
        (completion(None), "response_malformed"),
        (completion("half a pair \ud800"), "response_malformed"),
        ("text", "response_malformed"),
        (None, "response_malformed"),
    ],
)
def test_faulty_ultrafeedback_responses_are_left_out_and_told(bad, reason):
    reasons, (row,) = parse("ultrafeedback", {**ULTRAFEEDBACK, "completions": [bad, completion()]})
    assert reasons == [reason]
    assert [r["content"] for r in row["responses"]] == ["Yes."]
    assert parse("ultrafeedback", {**ULTRAFEEDBACK, "completions": [bad]}) == ([reason, "no_usable_response"], [])


@pytest.mark.parametrize("fine", [2.25, None, "x"])
def test_a_ten_is_kept_unless_the_fine_scores_deny_it(fine):
    ten = completion(overall=10, **{"fine-grained_score": fine})
    assert row_of("ultrafeedback", {**ULTRAFEEDBACK, "completions": [ten]})[2] == [("Yes.", 10.0)]


def test_a_wrong_ten_has_the_other_scores():
    wrong = {**ULTRAFEEDBACK, "completions": [completion(overall=10, **{"fine-grained_score": 1.5})]}
    assert row_of("ultrafeedback", wrong, score="fine_grained")[2] == [("Yes.", 1.5)]
    assert row_of("ultrafeedback", wrong, score="honesty")[2] == [("Yes.", 3.0)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"instruction": "  "}, "empty_prompt"),
        ({"completions": []}, "no_usable_response"),
        ({"instruction": None}, "malformed"),
        ({"completions": {"a": 1}}, "malformed"),
        ({"source": 3}, "malformed"),
    ],
)
def test_faulty_ultrafeedback_records(fields, reason):
    assert parse("ultrafeedback", {**ULTRAFEEDBACK, **fields}) == ([reason], [])


# UltraFeedback, binarized
def test_binarized_dialogues_of_several_turns():
    long = {
        **TRL,
        "chosen": dialogue("Hi", "Hello", "Q?", "A"),
        "rejected": dialogue("Hi", "Hello", "Q?", "B"),
    }
    assert row_of("ultrafeedback_binarized", long)[1:] == (dialogue("Hi", "Hello", "Q?"), [("A", 8.5), ("B", 3.5)])


def test_binarized_keeps_the_usable_side():
    reasons, (row,) = parse("ultrafeedback_binarized", {**TEXTS, "rejected": "", "score_rejected": None})
    assert reasons == ["response_empty"]
    assert [r["content"] for r in row["responses"]] == ["A"]
    assert parse("ultrafeedback_binarized", {**TEXTS, "score_chosen": None, "score_rejected": "x"})[1] == []


@pytest.mark.parametrize("reader", ["ultrafeedback_binarized", "file"])
@pytest.mark.parametrize(
    "chosen", [{"score_chosen": None}, {"score_chosen": float("nan")}, {"chosen": " "}, {"score_chosen": 0}]
)
def test_a_rejected_answer_is_never_the_best_of_its_prompt(reader, chosen):
    assert parse(reader, {**TEXTS, **chosen})[1] == []


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        *[({k: v for k, v in TEXTS.items() if k != key}, "malformed") for key in TEXTS],
        ({**TEXTS, "prompt": None}, "malformed"),
        ({**TEXTS, "prompt": [1]}, "malformed"),
        ({**TEXTS, "chosen": 7}, "malformed"),
        ({**TEXTS, "chosen": []}, "malformed"),
        ({**TEXTS, "chosen": [{"role": "assistant"}]}, "malformed"),
        ({**TEXTS, "chosen": [{"role": "robot", "content": "A"}]}, "malformed"),
        ({**TEXTS, "chosen": dialogue("no answer")}, "malformed"),
        ({**TRL, "chosen": dialogue("Q?", "A")[1:], "rejected": dialogue("Q?", "B")[1:]}, "malformed"),
        ({**TRL, "rejected": dialogue("Other?", "B")}, "prompts_differ"),
        ({**TEXTS, "prompt": " "}, "empty_prompt"),
    ],
)
def test_faulty_binarized_records(record, reason):
    assert parse("ultrafeedback_binarized", record) == ([reason], [])
