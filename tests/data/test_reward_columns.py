"""The columns that reward functions get: from the user's file into the files of prompts and of the test."""

import datetime
import json
from dataclasses import replace
from decimal import Decimal

import pytest
from one_line import told
from record_files import jsonl, table, write, write_parquet
from small_rows import PARAMS, row, run, source

from rlhf_lib.common.rows import parse_row
from rlhf_lib.common.schema import check
from rlhf_lib.data.load.load import load, parse_records
from rlhf_lib.data.load.params import LoadParams, SourceParams
from rlhf_lib.data.load.reader import Record
from rlhf_lib.data.prepare.prepare import prepare
from rlhf_lib.data.prepare.sizes import remarks

RECORDS = [
    {"prompt": "What is 3 + 4?", "solution": 7, "id": "x1", "meta": {"level": "easy", "tags": ["sum"]}},
    {"prompt": "What is 5 + 4?", "solution": "9", "id": "x2", "meta": {"level": None}},
    {"prompt": "Who wrote it?", "id": "x3"},
]
SOURCE = {"reader": "file", "name": "s"}


def params(*sources):
    return LoadParams([SourceParams(**fields) for fields in sources], instructions=5, num_proc=1, seed=0)


def columns(out, *sources):
    """The columns of each row that `load` writes; None for a row without any."""
    load(out, params(*sources))
    lines = (out / "rows.jsonl").read_bytes().splitlines()
    return [parse_row(line, "rows.jsonl").get("columns") for line in lines]


def parsed(value, **options):
    """What one record becomes."""
    fields = SourceParams(**SOURCE, path="a.jsonl", **options)
    return parse_records(fields, [Record("a.jsonl: line 1", {"prompt": "Q?", **value})])


def with_columns(prompt, source="s", scored=(), **values):
    return {**row(prompt, *scored, source=source), "columns": values}


# ---- load


def test_a_column_that_is_named_goes_along(tmp_path, capsys):
    path = write(tmp_path, "a.jsonl", jsonl(RECORDS))
    found = columns(tmp_path / "raw", {**SOURCE, "path": path, "reward_columns": ["solution", "meta"]})
    assert found == [
        {"solution": 7, "meta": {"level": "easy", "tags": ["sum"]}},
        {"solution": "9", "meta": {"level": None}},
        {"solution": None, "meta": None},
    ]
    assert json.loads((tmp_path / "raw/sources.json").read_text())["sources"][0]["reward_columns"] == [
        "solution",
        "meta",
    ]
    assert "s: columns not used: id; no row has an answer" in capsys.readouterr().out


def test_a_name_stands_for_a_column_or_a_path_and_one_that_is_read_goes_along_too(tmp_path):
    path = write(tmp_path, "a.jsonl", jsonl(RECORDS))
    named = {"solution": "solution", "level": "meta.level", "asked": "prompt"}
    found = columns(tmp_path / "raw", {**SOURCE, "path": path, "reward_columns": named})
    assert found[0] == {"solution": 7, "level": "easy", "asked": "What is 3 + 4?"}
    assert found[2] == {"solution": None, "level": None, "asked": "Who wrote it?"}


def test_without_names_rows_are_as_they_were(tmp_path):
    path = write(tmp_path, "a.jsonl", jsonl(RECORDS))
    assert columns(tmp_path / "raw", {**SOURCE, "path": path}) == [None, None, None]
    assert "columns" not in (tmp_path / "raw/rows.jsonl").read_text()
    assert "columns" not in (tmp_path / "raw/sources.json").read_text()


def test_csv_has_texts_and_parquet_has_types(tmp_path):
    csv = write(tmp_path, "a.csv", table([["prompt", "solution"], ["Q?", "7"], ["R?", ""]]))
    assert columns(tmp_path / "1", {**SOURCE, "path": csv, "reward_columns": ["solution"]}) == [
        {"solution": "7"},
        {"solution": ""},
    ]
    values = {
        "whole": 7,
        "half": 0.5,
        "missing": float("nan"),
        "null": None,
        "yes": True,
        "day": datetime.date(2024, 2, 29),
        "time": datetime.datetime(2024, 2, 29, 12, 30),
        "price": Decimal("1.10"),
        "list": [1, 2],
        "object": {"a": "b"},
    }
    records = [{"prompt": "Q?", **values}, {"prompt": "R?", **values, "missing": 1.0, "null": "n"}]
    path = write_parquet(tmp_path / "a.parquet", records)
    found = columns(tmp_path / "2", {**SOURCE, "path": path, "reward_columns": list(values)})
    as_json = {"missing": None, "day": "2024-02-29", "time": "2024-02-29T12:30:00", "price": "1.10"}
    assert found[0] == {**values, **as_json}
    assert found[1]["missing"] == 1.0 and type(found[1]["whole"]) is int and found[1]["yes"] is True


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (b"7", "a value of type bytes"),
        (float("inf"), "an infinite number"),
        ([1, {"a": float("-inf")}], "an infinite number"),
        ({1: 2}, "an object with keys that are no texts"),
        ("\ud800", "half a surrogate pair"),
        (datetime.timedelta(1), "a value of type timedelta"),
    ],
)
def test_a_value_that_json_cannot_hold_is_rejected_with_its_row(value, what):
    done = parsed({"solution": value}, reward_columns=["solution"])
    assert done.rows == []
    assert [(entry["reason"], entry["text"]) for entry in done.rejected] == [
        ("column_not_json", f"solution holds {what}; leave it out of load.sources[...].reward_columns")
    ]


def test_every_reader_gives_columns(tmp_path):
    records = [{"prompt": "\n\nHuman: Hi\n\nAssistant:", "response": "Hello.", "solution": n} for n in (1, 2)]
    path = write(tmp_path, "a.jsonl", jsonl(records))
    found = columns(tmp_path / "raw", {"reader": "sft_static", "path": path, "reward_columns": ["solution"]})
    assert found == [{"solution": 1}, {"solution": 2}]


def test_a_column_that_no_record_has_is_told(tmp_path):
    path = write(tmp_path, "a.jsonl", jsonl(RECORDS))
    source = {**SOURCE, "path": path, "reward_columns": {"solution": "answer"}}
    assert told(load, tmp_path / "raw", params(source)) == (
        "params.yaml: load.sources[0].reward_columns.solution: no record has 'answer'; there are: prompt, solution, "
        "id, meta"
    )


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        (
            ["final answer"],
            "'final answer' can be no argument of a function; map a name to it, such as {solution: 'final",
        ),
        (["class"], "'class' can be no argument"),
        (["id"], "id is taken; map another name to the column, such as {my_id: id}"),
        ({"completions": "answer"}, "completions is taken"),
        ("solution", "must be a list, got 'solution'"),
        ([1], "must be a text, got 1"),
    ],
)
def test_names_that_no_function_can_have_are_told(named, fault):
    values = {
        "sources": [{**SOURCE, "path": "a", "reward_columns": named}],
        "instructions": 5,
        "num_proc": 1,
        "seed": 0,
    }
    said = told(check, LoadParams, values, "load")
    assert said.startswith("params.yaml: load.sources[0].reward_columns") and fault in said


# ---- prepare


def test_prompts_and_the_test_have_the_columns_of_all_sources_and_other_files_none():
    rows = [with_columns(f"question {n}", source="a", solution=n) for n in range(60)]
    rows += [row(f"other {n}", source="b") for n in range(60)]
    sources = replace(source("a"), reward_columns=["solution"]), source("b", 1)
    files = run(rows, PARAMS, *sources).files
    for name in ("prompts_train", "prompts_validation", "test"):
        found = {record["prompt"][0]["content"]: record["solution"] for record in files[name]}
        assert {text.split()[0] for text in found} == {"question", "other"}
        for text, value in found.items():
            assert value == (int(text.split()[1]) if text.startswith("question") else None)
    assert not any(
        "solution" in record for name in ("sft_train", "reward_train", "groups_train") for record in files[name]
    )


ONE = replace(source(merges=True), reward_columns=["solution"])


def solutions(rows, sources=(ONE,)):
    """The solutions of all prompts, and how many rows were dropped by reason."""
    done = run(rows, PARAMS, *sources)
    names = ("prompts_train", "prompts_validation", "test")
    dropped = {reason: counts.total() for reason, counts in done.tally.dropped_rows.items()}
    texts = sorted(
        (record["prompt"][0]["content"], record["solution"]) for name in names for record in done.files[name]
    )
    return texts, dropped


def test_rows_of_one_prompt_that_agree_are_merged():
    pair = [with_columns("What is 3 + 4?", solution=7), with_columns("what is 3 + 4", solution=7)]
    assert solutions(pair) == ([("What is 3 + 4?", 7)], {"merged": 1})


def test_a_solution_that_the_first_row_lacks_comes_from_the_next():
    three = [with_columns("Q?", solution=value) for value in (None, 7, 7)]
    assert solutions(three) == ([("Q?", 7)], {"merged": 2})
    assert solutions([*three, with_columns("Q?", solution=8)]) == ([("Q?", 7)], {"merged": 2, "columns_differ": 1})


def test_a_conflict_is_told_and_the_first_row_holds():
    rows = [with_columns("What is 3 + 4?", solution=7), with_columns("What is 3 + 4?", solution=8)]
    assert solutions(rows) == ([("What is 3 + 4?", 7)], {"columns_differ": 1})
    done = run(rows, PARAMS, ONE)
    assert [line["reason"] for line in done.log] == ["columns_differ"]
    other = replace(source("b", 1), reward_columns=["solution"])
    apart = [rows[0], {**rows[1], "source": "b"}]
    assert solutions(apart, (ONE, other)) == ([("What is 3 + 4?", 7)], {"columns_differ": 1})


def test_prompts_that_differ_in_punctuation_and_in_solution_are_two_in_one_split():
    rows = []
    for n in range(30):
        signs = (("-", n - 2), ("*", 2 * n), ("/", n / 2))
        rows += [with_columns(f"What is {n} {sign} 2?", solution=value) for sign, value in signs]
    done = run([*rows, rows[1], row("What is 7 2?")], PARAMS, ONE)
    names = ("prompts_train", "prompts_validation", "test")
    places = {}
    for name in names:
        for record in done.files[name]:
            text = record["prompt"][0]["content"]
            places.setdefault(text.split()[2], []).append((name.partition("_")[2], record["solution"]))
            assert record["solution"] is not None
    for n, found in places.items():
        assert len({name for name, _ in found}) == 1
        assert sorted(value for _, value in found) == sorted((int(n) - 2, 2 * int(n), int(n) / 2))
    assert done.tally.dropped_rows.keys() == {"merged"} and done.tally.dropped_rows["merged"].total() == 2


def test_the_stages_write_them_and_tell_conflicts(tmp_path):
    records = [{"prompt": f"What is {n} + 1?", "completion": str(n + 1), "solution": n + 1} for n in range(80)]
    path = write(tmp_path, "a.jsonl", jsonl([*records, {**records[0], "solution": 5}]))
    load(tmp_path / "raw", params({**SOURCE, "path": path, "reward_columns": ["solution"]}))
    report = prepare(tmp_path / "raw", tmp_path / "splits", tmp_path / "rejected.jsonl", PARAMS)
    lines = (tmp_path / "splits/test.jsonl").read_text().splitlines()
    assert lines
    for record in map(json.loads, lines):
        assert list(record) == ["id", "source", "prompt", "solution", "responses"]
        assert record["responses"][0]["content"] == str(record["solution"])
    assert (
        "1 rows repeat a prompt with other values in the reward_columns and are not used (columns_differ in "
        "data/rejected.jsonl)"
    ) in list(remarks(report))
