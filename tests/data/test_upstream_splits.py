"""What upstream holds out for validation or testing is never trained on."""

import json

import pytest
from record_files import fault, jsonl, values, write

from rlhf_lib.common.rows import parse_row
from rlhf_lib.data.load.columns import parse
from rlhf_lib.data.load.files import read
from rlhf_lib.data.load.load import load
from rlhf_lib.data.load.params import LoadParams, SourceParams
from rlhf_lib.data.load.reader import Rejected
from rlhf_lib.data.load.split_names import held_out_files, is_held_out


def rows_of(names):
    return {name: [{"prompt": f"{name} {number}?"} for number in (1, 2)] for name in names}


def held_in(path):
    """(place, whether it is for the test) of each record."""
    return [(record.place.removeprefix(f"{path}: "), record.test) for record in read(str(path))]


@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        *[(name, False) for name in ("train", "training", "Train", "train_sft", "train-00000-of-00004", " train ")],
        *[(name, True) for name in ("test", "validation", "val", "VALID", "dev", "eval", "test_prefs", "testing")],
        *[(name, None) for name in ("data", "", "trainer", "math", "0", "my_test", "evaluate")],
    ],
)
def test_names(name, held_out):
    assert is_held_out(name) is held_out


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("names", "held_out"),
    [
        (["train", "val", "test"], [False, True, True]),
        (["train", "validation"], [False, True]),
        (["test", "train"], [True, False]),
    ],
)
def test_lists_in_one_json_file(tmp_path, indent, names, held_out):
    path = write(tmp_path, "a.json", json.dumps({"version": 1, **rows_of(names), "tags": ["a"]}, indent=indent))
    expected = [(f"{n} row {i}", held) for n, held in zip(names, held_out, strict=True) for i in (1, 2)]
    assert held_in(path) == expected


def test_one_list_is_of_its_split_too(tmp_path):
    assert held_in(write(tmp_path, "a.json", json.dumps(rows_of(["data"])))) == [("row 1", False), ("row 2", False)]
    assert held_in(write(tmp_path, "b.json", json.dumps(rows_of(["test"])))) == [("row 1", True), ("row 2", True)]


def test_lists_of_other_names_are_not_mixed(tmp_path):
    path = write(tmp_path, "a.json", json.dumps(rows_of(["train", "extra"])))
    assert fault(path) == (
        "has several lists of objects ('train', 'extra'); give each a file of its own, or name them train, "
        "validation and test"
    )


@pytest.mark.parametrize(
    "data", [{"prompt": ["Q?"], "response": ["A"]}, {"prompt": {"0": "Q?", "1": "R?"}, "response": {"0": "A"}}]
)
def test_columns_are_no_rows(tmp_path, data):
    assert fault(write(tmp_path, "a.json", json.dumps(data))) == (
        "holds columns, not rows; export it as a list of objects (pandas: to_json(orient='records'))"
    )


def test_files_that_a_glob_matches(tmp_path):
    names = ["latest.jsonl", "test-00000-of-00001.jsonl", "test_of_wits.jsonl", "train.jsonl", "validation.jsonl.gz"]
    for name in names:
        write(tmp_path, name, jsonl([{"prompt": name}]))
    held = [record.test for record in read(str(tmp_path / "*"))]
    assert held == [False, True, False, False, True]
    # named by the user for training
    assert [record.test for record in read(str(tmp_path / "test-*"))] == [False]
    assert held_out_files(["a/test.csv", "b/dev_1.csv"]) == set()


@pytest.mark.parametrize(
    ("paths", "held"),
    [
        (["tea/train/0.csv", "tea/test/0.csv"], ["tea/test/0.csv"]),
        (
            ["tea_train.csv", "tea_test.csv", "tea.val-00000-of-00002.csv"],
            ["tea_test.csv", "tea.val-00000-of-00002.csv"],
        ),
        (["a.training.jsonl.gz", "a.dev.jsonl.gz"], ["a.dev.jsonl.gz"]),
        (["test/my_train.csv", "test/my_other.csv"], []),  # a folder of all of them says nothing
        (["train/unit_test.csv", "train/plain.csv", "more/plain.csv"], []),
        (["unit_test.csv", "plain.csv"], []),  # no file is named for training
        (["train.csv", "latest.csv", "test_of_wits.csv", "contest/plain.csv"], []),
    ],
)
@pytest.mark.parametrize("folder", ["", "data/", "/data/test/"])
def test_files_are_held_out_by_folders_and_last_words(folder, paths, held):
    assert held_out_files([folder + path for path in paths]) == {folder + path for path in held}


def split_of(value, **columns):
    source = SourceParams(reader="file", name="mine", path="x", columns=columns)
    (item,) = parse({"prompt": "Q?", "response": "A", "split": value}, source)
    return item if isinstance(item, Rejected) else item["split"]


def test_a_column_with_the_split():
    assert [split_of(value) for value in ("train", "", None, "Test", "validation", "val", "dev")] == [
        *["train"] * 3,
        *["test"] * 4,
    ]
    fault = split_of("fold 3")
    assert fault.reason == "unknown_split"
    assert fault.text == "split 'fold 3'; call it train, validation or test, or set columns: {split: null}"
    assert split_of("fold 3", split=None) == "train"
    assert split_of(3).text == "split must be a text"


def test_load_says_how_many_are_for_the_test(tmp_path, capsys):
    path = write(tmp_path, "a.json", json.dumps(rows_of(["train", "val", "test"])))
    load(tmp_path / "raw", LoadParams([SourceParams("file", name="mine", path=path)], 5, 1, seed=0))
    assert capsys.readouterr().out == "mine: 6 rows; for the test: 4\n"
    rows = [parse_row(line, "row") for line in (tmp_path / "raw" / "rows.jsonl").read_bytes().splitlines()]
    assert [(row["prompt"][0]["content"], row["split"]) for row in rows][1:3] == [
        ("train 2?", "train"),
        ("val 1?", "test"),
    ]


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [{"role": "user", "content": "Q?"}]},
        {"prompt": "Q?", "responses": [{"text": "A"}, {"text": "B"}]},
        {"chosen": [{"role": "user"}], "rejected": [{"role": "user"}]},
    ],
)
def test_an_object_may_be_one_record(tmp_path, record):
    assert values(write(tmp_path, "a.json", json.dumps(record, indent=1))) == [record]
