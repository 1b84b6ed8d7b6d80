"""Answers with thumbs, from the file to the splits."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from record_files import jsonl, write
from small_rows import PARAMS, row, run, source

from rlhf_lib.data.load.columns import parse
from rlhf_lib.data.load.load import load
from rlhf_lib.data.load.params import LoadParams, SourceParams
from rlhf_lib.data.load.scores import read_label
from rlhf_lib.data.prepare import sizes
from rlhf_lib.data.prepare.params import MixtureParams
from rlhf_lib.data.prepare.prepare import prepare

# all prompts are for training on preferences
LOCAL = replace(PARAMS, sft_share=None, judge_share=0.0001, test_share=0.0, preference_share=0.9999)


def alone(count, start=0):
    """Rows of one answer each, with a thumb."""
    kinds = [("good", 1.0), ("bad", 0.0)]
    return [
        row(f"question {n}?", (f"{kind} {n}", score))
        for n, (kind, score) in ((n, kinds[n % 2]) for n in range(start, start + count))
    ]


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("sft_responses", ["all", "best"])
def test_a_thumb_down_is_no_demonstration(tmp_path, sft_responses):
    """Of every prompt a good and a bad answer, or one alone: the good ones are learnt, and both are pairs."""
    records = [
        {"prompt": f"Question {number}?", "completion": f"{kind} {number}", "label": kind == "good"}
        for number in range(150)
        for kind in (("good", "bad"), ("good",), ("bad",))[number % 3]
    ]
    path = write(tmp_path, "thumbs.jsonl", jsonl(records))
    load(tmp_path / "raw", LoadParams([SourceParams("file", path=path)], 5, 1, seed=0))
    splits = tmp_path / "splits"
    params = replace(PARAMS, sft_responses=sft_responses)
    prepare(tmp_path / "raw", splits, tmp_path / "rejected.jsonl", params)
    learnt = [record["completion"][0]["content"] for record in lines(splits / "sft_train.jsonl")]
    assert learnt and all(text.startswith("good") for text in learnt)
    pairs = lines(splits / "preference_train.jsonl")
    assert pairs
    for pair in pairs:
        good, bad = pair["chosen"][0]["content"], pair["rejected"][0]["content"]
        assert (good.split()[0], bad.split()[0]) == ("good", "bad")
        assert good.split()[1] == bad.split()[1]


# ---- the reader


@pytest.mark.parametrize(
    ("label", "score"),
    [
        *(
            (value, 1.0)
            for value in (
                True,
                1,
                1.0,
                "true",
                "1",
                "yes",
                "up",
                "Thumbs up",
                "thumbs_up",
                "👍",
                "👍🏽",
                "+1",
                "Y",
                "t",
                "OK",
            )
        ),
        *((value, 1.0) for value in ("like", "good", ":thumbsup:", "positive", "desirable", "upvote")),
        *(
            (value, 0.0)
            for value in (False, 0, -1, "false", "0", "no", "down", "thumbs-down", "THUMBS_DOWN", "👎", "-1", "n", "F")
        ),
        *((value, 0.0) for value in ("dislike", "bad", "negative", "undesirable", "downvote")),
        *((value, None) for value in (None, "", "spam", 0.5, 2, "up and down", [], {"up": 1})),
    ],
)
def test_a_thumb_in_the_words_of_common_exports(label, score):
    assert read_label(label) == score


MESSAGES = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q?"}]
ANSWER = [{"role": "assistant", "content": "A"}]


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        ({"prompt": MESSAGES, "completion": ANSWER, "label": False}, {}),  # as trl-lib/kto-mix-14k has them
        ({"prompt": MESSAGES, "completion": "A", "label": 0}, {}),
        ({"messages": MESSAGES + ANSWER, "label": "down"}, {}),
        ({"system": "S", "prompt": "Q?", "response": "A", "label": "👎"}, {}),
        ({"system": "S", "q": "Q?", "a": "A", "rating": -1}, {"prompt": "q", "completion": "a", "label": "rating"}),
        (
            {"conversations": [*MESSAGES, *ANSWER], "kto_tag": "false"},
            {"messages": "conversations", "label": "kto_tag"},
        ),
    ],
)
def test_the_forms_of_an_answer_with_a_thumb(record, columns):
    (row,) = parse(record, SourceParams("file", path="a.jsonl", columns=columns))
    assert (row["prompt"], row["responses"]) == (MESSAGES, [{"content": "A", "score": 0.0}])


@pytest.mark.parametrize(
    ("record", "reason", "text"),
    [
        (
            {"prompt": "Q?", "completion": "A", "label": "spam"},
            "unknown_label",
            "label 'spam': a thumb is true or false, 1",
        ),
        ({"prompt": "Q?", "completion": "A", "label": None}, "response_no_score", "A"),
        ({"prompt": "Q?", "completion": " ", "label": True}, "response_empty", " "),
        ({"prompt": "Q?", "completion": 7, "label": True}, "malformed", ""),
        ({"prompt": " ", "completion": "A", "label": True}, "empty_prompt", ""),
        ({"prompt": ANSWER, "completion": "A", "label": True}, "malformed", "a prompt must be a text, or messages"),
        ({"prompt": "Q?", "label": True, "x": 1}, None, ""),  # a prompt alone
        ({"completion": "A", "label": True}, "missing_column", "has no prompt, but completion, label; set load"),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason(record, reason, text):
    item, *_ = parse(record, SourceParams("file", path="a.jsonl", columns={}))
    if reason is None:
        assert item["responses"] == []
    else:
        assert (item.reason, item.text[: len(text)]) == (reason, text)


# ---- the splits


def thumbs_of(done, half="train"):
    return [(r["completion"][0]["content"], r["label"]) for r in done.files[f"thumbs_{half}"]]


def test_pairs_are_taken_apart_for_kto_as_dpo_learns_from_them():
    done = run([row("Is it so?", ("best", 9.0), ("fair", 5.0), ("poor", 1.0))] * 1, LOCAL)
    assert thumbs_of(done) == [
        *(("best", True), ("fair", False)),
        *(("best", True), ("poor", False)),
        *(("fair", True), ("poor", False)),
    ]
    pairs = [(p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in done.files["preference_train"]]
    assert pairs == [("best", "fair"), ("best", "poor"), ("fair", "poor")]
    assert len({record["id"] for record in done.files["thumbs_train"]}) == 6
    gap = run([row("Is it so?", ("best", 9.0), ("fair", 5.0), ("poor", 1.0))], replace(LOCAL, min_score_gap=8.0))
    assert thumbs_of(gap) == [("best", True), ("poor", False)]


def test_answers_with_labels_are_thumbs_each_once():
    several = row("Is it so?", ("a", 1.0), ("b", 0.0), ("c", 0.0), ("d", None))
    done = run([several], LOCAL, source(labels=True))
    assert thumbs_of(done) == [("a", True), ("b", False), ("c", False)]


def test_a_source_of_thumbs_serves_kto_sft_and_the_test():
    done = run(alone(300), PARAMS, source(labels=True))
    filled = {name.partition("_")[0] for name, records in done.files.items() if records}
    assert filled == {"sft", "thumbs", "prompts", "test"}
    assert {text.split()[0] for text, label in thumbs_of(done) if label} == {"good"}
    assert {text.split()[0] for text, label in thumbs_of(done) if not label} == {"bad"}
    assert all(record["completion"][0]["content"].startswith("good") for record in done.files["sft_train"])
    tested = [[r["content"].split()[0] for r in record["responses"]] for record in done.files["test"]]
    assert [] in tested and ["good"] in tested and ["bad"] not in tested  # which is nothing to compare with
    assert done.tally.no_pair == {} and done.tally.fault(PARAMS, ["sft", "kto", "prompts"]) is None
    assert done.tally.files["thumbs_train"].summary()["good"] == sum(label for _, label in thumbs_of(done))


@pytest.mark.parametrize(("pairs", "compared"), [(0, False), (29, False), (31, True), (300, True)])
def test_a_few_pairs_by_chance_make_no_preferences(pairs, compared):
    """Below a tenth of the prompts they are thumbs that happen to be of one prompt."""
    rows = [row(f"question {n}?", ("good", 1.0), ("bad", 0.0)) for n in range(pairs)]
    done = run([*rows, *alone(300 - pairs, start=1000)], PARAMS, source(labels=True))
    assert bool(done.files["judge_train"]) == bool(done.files["preference_train"]) == compared
    assert len(done.files["thumbs_train"]) > 50


def test_thumbs_that_come_row_by_row_are_pairs_where_they_are_of_one_prompt():
    rows = [row(f"question {n // 2}?", (f"a{n}", float(n % 2))) for n in range(400)]
    assert run(rows, PARAMS, source(labels=True, merges=True)).files["reward_train"]


def test_the_mixture_has_the_last_word_on_what_thumbs_are_for():
    mixed = replace(PARAMS, mixture={"s": MixtureParams(roles=["sft", "preference"])})
    done = run(alone(300), mixed, source(labels=True))
    assert not done.files["preference_train"]
    assert done.tally.fault(mixed, ["sft", "reward", "dpo", "kto", "judge"]) == (
        "load.sources: no prompt of reward_train has two responses with different scores (single_response "
        f"{done.tally.no_pair['single_response']['s']}); add a source, or give this one the role kto, for thumbs"
    )


def test_thumbs_beside_pairs():
    pairs = [row(f"pair {n}?", ("best", 8.0), ("poor", 2.0), source="p") for n in range(200)]
    done = run([*alone(200), *pairs], PARAMS, source(labels=True), source("p", 1))
    assert {record["source"] for record in done.files["thumbs_train"]} == {"s", "p"}
    assert {record["source"] for record in done.files["preference_train"]} == {"p"}
    assert {record["source"] for record in done.files["judge_train"]} == {"p"}


def test_of_thumbs_alone_prepare_says_who_leaves_itself_out(tmp_path):
    records = [{"prompt": f"Question {n}?", "completion": f"A{n}", "label": n % 2 == 0} for n in range(300)]
    path = write(tmp_path, "thumbs.jsonl", jsonl(records))
    load(tmp_path / "raw", LoadParams([SourceParams("file", path=path)], 5, 1, seed=0))
    report = prepare(tmp_path / "raw", tmp_path / "splits", tmp_path / "rejected.jsonl", PARAMS)
    assert report["sources"]["file"]["roles"] == "sft kto prompts"
    (first, *_) = sizes.remarks(report)
    assert first == ("left out: reward, judge, dpo: only thumbs: no pairs; kto learns from them (methods.kto=true)")


# ---- votes, and bad answers


def votes(*thumbs, prompt="Is it so?"):
    """A row for each vote: an answer with its thumb."""
    return [row(prompt, (answer, score)) for answer, score in thumbs]


def test_of_several_votes_on_an_answer_most_count():
    given = votes(("a", 0.0), ("b", 1.0), ("a", 1.0), ("a", 1.0), ("b", 0.0), ("b", 0.0), ("c", 1.0), ("d", 0.0))
    done = run(given, LOCAL, source(labels=True, merges=True))
    assert thumbs_of(done) == [("a", True), ("b", False), ("c", True), ("d", False)]
    assert done.tally.dropped_rows == {"merged": {"s": 7}} and done.tally.dropped_responses == {}


def test_an_answer_with_as_many_thumbs_up_as_down_is_left_out_and_told():
    done = run(votes(("a", 0.0), ("b", 1.0), ("a", 1.0)), LOCAL, source(labels=True, merges=True))
    assert thumbs_of(done) == [("b", True)]
    assert done.tally.dropped_responses == {"votes_tied": {"s": 1}}
    assert [(line["reason"], line["text"]) for line in done.log] == [("votes_tied", "a")]


def test_votes_that_differ_on_one_answer_compare_nothing():
    """An up and a down for the same answer make no pair, so that the source is one of thumbs."""
    given = [one for n in range(200) for one in votes((f"a{n}", 1.0), (f"a{n}", 0.0), prompt=f"question {n}?")]
    extra = votes(*[("good", 1.0)] * 2, prompt="last")
    done = run([*given, *extra], PARAMS, source(labels=True, merges=True))
    assert not done.files["reward_train"]
    assert done.tally.no_pair == {}
    assert done.tally.dropped_responses == {"votes_tied": {"s": 200}}


def test_prompts_of_bad_answers_alone_are_none_of_sfts():
    done = run(alone(600), replace(PARAMS, test_share=0.0, preference_share=0.55), source(labels=True))
    assert set(done.tally.dropped_rows) == set()
    places = Counter(name.partition("_")[0] for name in done.files for record in done.files[name] if of_bad(record))
    assert set(places) == {"thumbs"} and places["thumbs"] == 300  # all of them


def of_bad(record):
    return record.get("completion", [{"content": ""}])[0]["content"].startswith("bad")


def test_bad_answers_alone_are_told_as_what_they_are(tmp_path):
    records = [{"prompt": f"Question {n}?", "completion": f"A{n}", "label": False} for n in range(50)]
    path = write(tmp_path, "thumbs.jsonl", jsonl(records))
    load(tmp_path / "raw", LoadParams([SourceParams("file", path=path)], 5, 1, seed=0))
    with pytest.raises(SystemExit) as told:
        prepare(tmp_path / "raw", tmp_path / "splits", tmp_path / "rejected.jsonl", PARAMS)
    assert str(told.value) == (
        "params.yaml: load.sources: none of 50 rows has a good answer for SFT: all labels are 0; load good answers "
        "too, from this source or another"
    )
    assert not (tmp_path / "splits" / "sft_train.jsonl").exists()


def test_bad_answers_of_a_source_for_sft_alone_are_counted():
    mixed = replace(PARAMS, mixture={"s": MixtureParams(roles=["sft"])})
    done = run(alone(100), mixed, source(labels=True))
    assert done.tally.dropped_rows == {"no_good_answer": {"s": 50}}
