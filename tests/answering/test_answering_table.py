"""The file of answers, as others read it."""

import csv
import json

import pytest

from rlhf_lib.answering import prompts, table

TEXTS = ["plain", 'with "quotes", and commas', "two\nlines", "CR LF\r\nin it", "é 中 \u2028 🙂", "", "'quoted'"]


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_what_a_spreadsheet_would_take_for_a_formula_is_text(tmp_path, sign):
    text = f'{sign}HYPERLINK("http://example.org")'
    table.write_csv(tmp_path / "a.csv", [{"answer": text, "reward": -1.5, "tokens": 3, "inner": f"a{sign}"}])
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row == {"answer": f"'{text}", "reward": "-1.5", "tokens": "3", "inner": f"a{sign}"}
    assert not any(value.startswith(("=", "+", "@", "\t", "\r")) for value in row.values())


def test_csv_is_that_of_rfc_4180(tmp_path):
    rows = [{"row": i, "answer": text, "bleu": None, "finished": True} for i, text in enumerate(TEXTS)]
    table.write_csv(tmp_path / "a.csv", rows)
    data = (tmp_path / "a.csv").read_bytes()
    assert data.startswith(b"row,answer,bleu,finished\r\n0,plain,,true\r\n")
    assert b'1,"with ""quotes"", and commas",,true\r\n2,"two\nlines",,true\r\n' in data
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        assert [row["answer"] for row in csv.DictReader(file)] == TEXTS


def test_a_dialogue_is_one_cell(tmp_path):
    prompt = [
        {"role": "user", "content": "=1"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    table.write_csv(tmp_path / "a.csv", [{"prompt": prompt}])
    assert (tmp_path / "a.csv").read_bytes() == b'prompt\r\n"user: =1\nassistant: b\nuser: c"\r\n'


@pytest.mark.parametrize("text", ["-dash", "=1+1", "'=1+1", "''-x", "'quoted'", "'", "plain", "@a '", "\tb", "＝c"])
def test_a_csv_of_ours_is_read_as_the_texts_that_it_was_written_from(tmp_path, text):
    row = {"row": 1, "id": text, "prompt": text, "reference": text, "answer": text, "finished": True, "tokens": 2}
    table.write_csv(tmp_path / "a.csv", [row])
    (found,) = prompts.read(str(tmp_path / "a.csv"))
    assert (found.prompt[0]["content"], found.reference, found.columns["id"]) == (text, text, text)


def test_a_nul_in_an_answer_does_not_make_a_csv_that_cannot_be_read(tmp_path):
    row = {"row": 1, "prompt": "a\0b", "reference": "\0=1", "answer": "\0", "finished": False, "tokens": 2}
    table.write_csv(tmp_path / "a.csv", [row])
    (found,) = prompts.read(str(tmp_path / "a.csv"))
    assert (found.prompt[0]["content"], found.reference) == ("a\ufffdb", "\ufffd=1")


def test_apostrophes_in_files_of_others_stay(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,answer,finished\n'-dash,'=1,true\n")
    (found,) = prompts.read(str(tmp_path / "a.csv"))
    assert (found.prompt[0]["content"], found.reference) == ("'-dash", "'=1")
    row = {"row": 1, "prompt": "'-dash", "reference": "'=1", "answer": "", "finished": True, "tokens": 2}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    (found,) = prompts.read(str(tmp_path / "a.jsonl"))
    assert (found.prompt[0]["content"], found.reference) == ("'-dash", "'=1")


def test_json_lines_are_as_they_are(tmp_path):
    rows = [{"answer": text, "reward": -0.5, "bleu": None, "finished": False} for text in [*TEXTS, "=1"]]
    table.writer("a.jsonl", ["p.txt"])(tmp_path / "a.jsonl", rows)
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().split("\n")[:-1]] == rows


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "p.csv").write_text("prompt\na\n")
    (tmp_path / "folder.csv").mkdir()
    for out, words in (
        ("a.xlsx", "the name must end in one of .jsonl"),
        (tmp_path / "folder.csv", "a folder"),
        (tmp_path / "p.csv", "the file of the prompts"),
    ):
        with pytest.raises(SystemExit, match=words):
            table.writer(str(out), [str(tmp_path / "q.csv"), str(tmp_path / "p.csv")])
