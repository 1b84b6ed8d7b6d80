import json
import sys
from types import SimpleNamespace

import pytest

from rlhf_lib import sources
from rlhf_lib.params.load import LoadParams
from rlhf_lib.sources import Rejected, parse_binarized, parse_ultrafeedback, read_rows

COMMIT = "0" * 40


def completion(response="Yes.", score=7.0, **more):
    return {"response": response, "overall_score": score, "fine-grained_score": 4.0, **more}


def raw(**fields):
    return {"source": "flan", "instruction": "Is it?", "completions": [completion()], **fields}


def binarized(**fields):
    return {"prompt": "Q?", "chosen": "A", "rejected": "B", "score_chosen": 8, "score_rejected": 3.5, **fields}


def dialogue(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def params(**fields):
    plain = {"source": "ultrafeedback", "path": "x", "revision": None, "max_rows": None, "instructions": 5, "seed": 0}
    return LoadParams(**{**plain, **fields})


def outcome(items):
    """Reasons of what was rejected, and the rows."""
    items = list(items)
    return [i.reason for i in items if isinstance(i, Rejected)], [i for i in items if not isinstance(i, Rejected)]


def test_ultrafeedback_row():
    reasons, rows = outcome(parse_ultrafeedback(raw(completions=[completion(), completion("No.", 2)])))
    assert reasons == []
    assert rows[0]["source"] == "ultrafeedback/flan"
    assert rows[0]["prompt"] == [{"role": "user", "content": "Is it?"}]
    assert rows[0]["responses"] == [{"content": "Yes.", "score": 7.0}, {"content": "No.", "score": 2.0}]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (completion(" \n"), "completion_empty"),
        (completion("\u200b"), "completion_empty"),
        (completion(score=None), "completion_no_score"),
        (completion(score=float("nan")), "completion_no_score"),
        (completion(score="N/A"), "completion_no_score"),
        (completion(score=True), "completion_no_score"),
        (completion(score=10, **{"fine-grained_score": 2.0}), "completion_wrong_score"),
        (completion(response=None), "completion_malformed"),
        (completion(response="half a pair \ud800"), "completion_malformed"),
        ({"response": "no score"}, "completion_malformed"),
        ("text", "completion_malformed"),
        (None, "completion_malformed"),
    ],
)
def test_faulty_completions_are_left_out_and_counted(bad, reason):
    reasons, rows = outcome(parse_ultrafeedback(raw(completions=[bad, completion()])))
    assert reasons == [reason]
    assert [r["content"] for r in rows[0]["responses"]] == ["Yes."]
    reasons, rows = outcome(parse_ultrafeedback(raw(completions=[bad])))
    assert reasons == [reason, "no_usable_completion"]
    assert rows == []


@pytest.mark.parametrize("fine", [2.25, None, "x"])
def test_a_ten_is_kept_unless_the_fine_scores_deny_it(fine):
    reasons, rows = outcome(
        parse_ultrafeedback(raw(completions=[completion(score=10, **{"fine-grained_score": fine})]))
    )
    assert (reasons, rows[0]["responses"][0]["score"]) == ([], 10.0)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (raw(instruction="  "), "empty_prompt"),
        (raw(completions=[]), "no_usable_completion"),
        (raw(instruction=None), "malformed"),
        (raw(completions={"a": 1}), "malformed"),
        (raw(source=3), "malformed"),
        ({}, "malformed"),
        ([], "malformed"),
        (None, "malformed"),
        ("text", "malformed"),
    ],
)
def test_faulty_ultrafeedback_records(record, reason):
    assert outcome(parse_ultrafeedback(record)) == ([reason], [])


def test_binarized_texts():
    reasons, (row,) = outcome(parse_binarized(binarized()))
    assert reasons == []
    assert row["responses"] == [{"content": "A", "score": 8.0}, {"content": "B", "score": 3.5}]


def test_binarized_message_lists():
    lists = {"chosen": dialogue("Q?", "A"), "rejected": dialogue("Q?", "B")}
    assert outcome(parse_binarized(binarized(**lists))) == outcome(parse_binarized(binarized()))
    long = binarized(chosen=dialogue("Hi", "Hello", "Q?", "A"), rejected=dialogue("Hi", "Hello", "Q?", "B"))
    del long["prompt"]
    _, (row,) = outcome(parse_binarized(long))
    assert row["prompt"] == dialogue("Hi", "Hello", "Q?")
    assert [r["content"] for r in row["responses"]] == ["A", "B"]


def test_binarized_keeps_the_usable_side():
    reasons, (row,) = outcome(parse_binarized(binarized(rejected="", score_rejected=None)))
    assert reasons == ["completion_empty"]
    assert [r["content"] for r in row["responses"]] == ["A"]
    assert outcome(parse_binarized(binarized(score_chosen=None, score_rejected="x")))[1] == []


def without(key):
    record = binarized()
    del record[key]
    return record


@pytest.mark.parametrize(
    "record",
    [
        *[without(key) for key in binarized()],
        binarized(prompt=None),
        binarized(prompt=[1]),
        binarized(chosen=7),
        binarized(chosen=[]),
        binarized(chosen=[{"role": "assistant"}]),
        binarized(chosen=[{"role": "robot", "content": "A"}]),
        binarized(chosen=[{"role": "user", "content": "no answer"}]),
        {**without("prompt"), "chosen": dialogue("Q?", "A"), "rejected": dialogue("Other?", "B")},
        {**without("prompt"), "chosen": dialogue("Q?", "A")[1:], "rejected": dialogue("Q?", "B")[1:]},
        None,
        [],
        3,
    ],
)
def test_faulty_binarized_records(record):
    assert outcome(parse_binarized(record)) == (["malformed"], [])


def test_local_file_and_max_rows(tmp_path):
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in [raw(), 5, raw(instruction="B?"), raw(instruction="C?")]))
    reasons, rows = outcome(read_rows(params(path=str(path), max_rows=3)))
    assert reasons == ["malformed"]
    assert [r["prompt"][0]["content"] for r in rows] == ["Is it?", "B?"]


def test_missing_file_is_one_line():
    with pytest.raises(SystemExit) as error:
        list(read_rows(params(path="nowhere.jsonl")))
    assert str(error.value).startswith("params.yaml: load.path: no such file 'nowhere.jsonl'; ")


def test_demo_goes_through_the_ultrafeedback_reader(monkeypatch):
    def build_rows(instructions, seed):
        return [raw(source="facts", instruction=f"Q{seed} {i}?") for i in range(instructions)]

    monkeypatch.setattr(sources, "build_rows", build_rows)
    _, rows = outcome(read_rows(params(source="demo", path=None, seed=3, max_rows=2)))
    assert [(r["source"], r["prompt"][0]["content"]) for r in rows] == [
        ("demo/facts", "Q3 0?"),
        ("demo/facts", "Q3 1?"),
    ]


def test_hub_reader_asks_for_the_pinned_revision(monkeypatch):
    asked = []

    def load_dataset(name, **options):
        asked.append((name, options))
        return [binarized()]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    _, rows = outcome(read_rows(params(source="ultrafeedback_binarized", path=None, revision=COMMIT)))
    assert len(rows) == 1
    assert asked == [("HuggingFaceH4/ultrafeedback_binarized", {"revision": COMMIT, "split": "train_prefs"})]


def test_hub_failure_names_the_offline_way_out(monkeypatch):
    def load_dataset(name, **options):
        raise ConnectionError("no\nnetwork")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(SystemExit) as error:
        list(read_rows(params(path=None, revision=COMMIT)))
    message = str(error.value)
    assert message.startswith("params.yaml: load.path: cannot read openbmb/UltraFeedback")
    assert "\n" not in message


def test_the_real_demo_can_be_read():
    reasons, rows = outcome(read_rows(params(source="demo", path=None, instructions=30)))
    assert len(rows) >= 30
    assert {r["source"].partition("/")[0] for r in rows} == {"demo"}
    assert not [reason for reason in reasons if "malformed" in reason]


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"path": None}, "revision"), ({"path": None, "revision": "main"}, "revision"), ({"source": "demo"}, "path")],
)
def test_faults_between_params(fields, field):
    with pytest.raises(ValueError, match=f"^{field}: "):
        params(**fields)
