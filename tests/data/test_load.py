import json
import re

import pytest
from upstream import HH, HH_PROMPTS, RECORDS, SFT_STATIC, SHP, ULTRACHAT, ULTRAFEEDBACK, completion, parse

from rlhf_lib.common.rows import EXCERPT, parse_row, row_id, write_jsonl
from rlhf_lib.data.load.load import load, parse_records
from rlhf_lib.data.load.params import LoadParams, SourceParams
from rlhf_lib.data.load.reader import Record

ALL = ["sft", "preference", "prompts"]


def local(folder, records, file="a.jsonl", reader="file", **fields):
    """A source of records in a file: an array where its name ends in .json, else a line for each."""
    path = folder / file
    if file.endswith(".json"):
        path.write_text(json.dumps(records))
    else:
        write_jsonl(path, records)
    return {"reader": reader, "path": str(path), **fields}


def params(*sources, num_proc=1, instructions=5):
    return LoadParams([SourceParams(**fields) for fields in sources], instructions, num_proc, seed=0)


def loaded(out, *sources, **options):
    """The rows, the lines of rejected.jsonl and what is in sources.json."""
    load(out, params(*sources, **options))
    rows = [parse_row(line, "rows.jsonl") for line in (out / "rows.jsonl").read_bytes().splitlines()]
    rejected = [json.loads(line) for line in (out / "rejected.jsonl").read_bytes().splitlines()]
    return rows, rejected, json.loads((out / "sources.json").read_bytes())


def written(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}


def fault(out, *sources, **options):
    """The one line that loading ends in; what was in `out` before is there still."""
    before = written(out)
    with pytest.raises(SystemExit) as error:
        load(out, params(*sources, **options))
    assert "\n" not in str(error.value)
    assert written(out) == before
    return str(error.value)


def test_sources_are_loaded_one_after_the_other(tmp_path):
    rows, rejected, described = loaded(
        tmp_path / "raw",
        local(tmp_path, [{"prompt": "Q1?", "response": "A", "score": 3}, {"response": "B"}], name="mine"),
        local(tmp_path, [ULTRAFEEDBACK], "b.json", "ultrafeedback", test=True),
        {"reader": "demo", "max_records": 3},
        instructions=9,
    )
    prompt = [{"role": "user", "content": "Q1?"}]
    assert rows[0] == {
        "id": row_id("mine", prompt),
        "source": "mine",
        "split": "train",
        "prompt": prompt,
        "responses": [{"content": "A", "score": 3.0}],
    }
    assert (rows[1]["source"], rows[1]["split"]) == ("ultrafeedback/flan", "test")
    assert {(row["source"].partition("/")[0], row["split"]) for row in rows[2:]} == {("demo", "train")}
    assert len(rows) == 5
    mine, *of_demo = rejected
    assert (mine["stage"], mine["source"], mine["reason"]) == ("load", "mine", "missing_column")
    assert mine["place"] == f"{tmp_path}/a.jsonl: line 2"
    assert described["rejected"]["missing_column"] == {"mine": 1}
    assert sum(sum(counts.values()) for counts in described["rejected"].values()) == 1 + len(of_demo)
    assert [(info["name"], info["score_range"]) for info in described["sources"]] == [
        ("mine", None),
        ("ultrafeedback", [1, 10]),
        ("demo", [1, 10]),
    ]


@pytest.mark.parametrize(
    ("reader", "record", "roles", "labels", "merges"),
    [
        ("hh", HH, ALL, True, False),
        ("hh_prompts", HH_PROMPTS, ["prompts"], True, False),
        ("ultrachat", ULTRACHAT, ["sft"], True, False),
        ("sft_static", SFT_STATIC, ["sft"], True, False),
        ("shp", SHP, ALL, False, True),
        ("file", {"prompt": "Q?"}, ["prompts"], True, True),
        ("file", {"prompt": "Q?", "response": "A"}, ["sft", "prompts"], True, True),
        ("file", {"prompt": "Q?", "response": "A", "score": 1}, ALL, True, True),
        ("file", {"prompt": "Q?", "response": "A", "score": 0.5}, ALL, False, True),
        ("file", {"prompt": "Q?", "chosen": "A", "rejected": "B"}, ALL, True, True),
        (
            "file",
            {"prompt": "Q?", "chosen": "A", "rejected": "B", "score_chosen": 3, "score_rejected": 1},
            ALL,
            False,
            True,
        ),
    ],
)
def test_what_the_rows_of_a_source_are_good_for(tmp_path, reader, record, roles, labels, merges):
    _, _, described = loaded(tmp_path / "raw", local(tmp_path, [record], reader=reader))
    (info,) = described["sources"]
    assert (info["roles"], info["labels"], info["merges"]) == (roles, labels, merges)


def test_the_prompts_of_a_source_for_the_test_can_be_tested_on(tmp_path):
    source = local(tmp_path, [{"prompt": "Q?"}], test=True)
    rows, _, described = loaded(tmp_path / "raw", source)
    assert [row["split"] for row in rows] == ["test"] and described["sources"][0]["roles"] == ["prompts", "test"]


def test_one_score_in_any_record_shows_that_scores_are_no_labels(tmp_path):
    records = [{"prompt": f"Q{n}?", "responses": ["A", "B"], "scores": [1, 0]} for n in range(150)]
    records[70]["scores"] = [0.5, 0]
    (info,) = loaded(tmp_path / "raw", local(tmp_path, records))[2]["sources"]
    assert (info["labels"], info["merges"]) == (False, True)


@pytest.mark.parametrize(
    ("reader", "value", "source"),
    [("hh", HH, "hh/helpful-base"), ("ultrafeedback", ULTRAFEEDBACK, "ultrafeedback/flan")],
)
@pytest.mark.parametrize("test", [True, False])
def test_rows_name_their_subset_and_keep_the_split_of_upstream(reader, value, source, test):
    records = [Record("x", json.dumps(value).encode(), test, "helpful-base"), Record("y", 3, test, "helpful-base")]
    parsed = parse_records(SourceParams(reader), records)
    (row,) = (parse_row(line, "row") for line in parsed.rows)
    assert (row["source"], row["split"]) == (source, "test" if test else "train")
    (rejected,) = parsed.rejected
    assert (rejected["place"], rejected["reason"], rejected["text"]) == ("y", "malformed", "3")


def test_long_texts_are_shown_by_their_beginning():
    record = {**ULTRAFEEDBACK, "completions": [completion("é" * 999, None), completion("b")]}
    (rejected,) = parse_records(SourceParams("ultrafeedback"), [Record("x", record)]).rejected
    assert (rejected["reason"], rejected["text"]) == ("response_no_score", "é" * EXCERPT)


@pytest.mark.parametrize("file", ["a.jsonl", "a.json"])
def test_rows_are_the_same_with_any_number_of_processes(tmp_path, file):
    records = [{"prompt": f"Q{n}?", "chosen": "A", "rejected": f"B{n % 3}"} for n in range(300)]
    for place in (0, 99, 299):
        records[place] = {"text": "é\u2028"}
    source = local(tmp_path, records, file)
    for num_proc in (1, 2):
        load(tmp_path / str(num_proc), params(source, {"reader": "demo"}, num_proc=num_proc))
    assert written(tmp_path / "1") == written(tmp_path / "2")
    assert (tmp_path / "1" / "rejected.jsonl").read_bytes().count(b"no_known_column") == 3


def test_several_files_and_the_first_records_of_each(tmp_path):
    for name in "ba":
        local(tmp_path, [{"prompt": f"{name}{n}?"} for n in range(4)], f"{name}.jsonl")
    rows, _, _ = loaded(tmp_path / "raw", {"reader": "file", "path": f"{tmp_path}/*.jsonl", "max_records": 2})
    assert [row["prompt"][0]["content"] for row in rows] == ["a0?", "a1?", "b0?", "b1?"]


def test_a_source_without_usable_rows_is_named(tmp_path):
    records = [{"prompt": " "}, {"prompt": 3}, {"prompt": "\n"}]
    good = local(tmp_path, [{"prompt": "Q?"}], "good.jsonl")
    text = fault(tmp_path / "raw", good, local(tmp_path, records, name="mine"))
    assert text.startswith(
        "params.yaml: load.sources[1]: no usable row for reader file (rejected: empty_prompt 2, malformed 1; "
        f"first: {tmp_path}/a.jsonl: line 1: empty_prompt: "
    )
    assert text.endswith("check path and columns")


@pytest.mark.parametrize("num_proc", [1, 2])
def test_a_broken_line_ends_in_one_line_and_leaves_no_file(tmp_path, num_proc):
    source = local(tmp_path, [{"prompt": f"Q{n}?"} for n in range(200)])
    load(tmp_path / "raw", params(source))
    with open(source["path"], "a") as file:
        file.write('{"prompt": \n')
    for out in (tmp_path / "raw", tmp_path / "new"):
        assert fault(out, source, num_proc=num_proc).startswith(f"{tmp_path}/a.jsonl: line 201: not JSON")


@pytest.mark.parametrize(("num_proc", "depth"), [(1, 300), (1, 900), (2, 300), (2, 600), (2, 900)])
def test_deeply_nested_records_are_rejected_or_end_in_one_line(tmp_path, num_proc, depth):
    records = [{"prompt": f"Q{n}?", "response": "A"} for n in range(200)]
    text = json.dumps(records).replace("]", ', {"prompt": "Q?", "response": ' + "[" * depth + "]" * depth + "}]")
    (tmp_path / "a.json").write_text(text)
    source = {"reader": "file", "path": str(tmp_path / "a.json")}
    try:
        rows, rejected, _ = loaded(tmp_path / "raw", source, num_proc=num_proc)
    except SystemExit as error:
        assert "nested too deeply" in str(error) and "\n" not in str(error)
    else:
        assert (len(rows), len(rejected)) == (200, 1)


def test_what_is_printed_has_no_control_characters(tmp_path, capsys):
    records = [{"prompt": "\x1b[31m\a"}, {"prompt\x07": "Q?"}]
    assert "\x1b" not in (text := fault(tmp_path / "raw", local(tmp_path, [{"prompt": 3, "x": "\x1b[2J\n"}])))
    assert text.count("\n") == 0
    loaded(tmp_path / "raw", local(tmp_path, records))
    assert not {"\x1b", "\x07"} & set(capsys.readouterr().out)


@pytest.mark.parametrize(("reader", "record"), [entry for entry in RECORDS if entry[0] != "demo"])
def test_who_brings_other_records_is_told_what_the_reader_takes(reader, record, tmp_path):
    """It names the columns without which a record gives no row."""
    told = fault(tmp_path / "raw", local(tmp_path, [{"question of": "Q?", "reply": "A"}], reader=reader))
    wanted = re.search("a record of that reader has (.*); for others, set reader: file", told)[1]
    needed = [name for name in record if not parse(reader, {key: record[key] for key in record if key != name})[1]]
    assert [name for name in needed if not re.search(rf"\b{name}\b", wanted)] == []
