import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lib.rows import as_score, make_row, normalise, read_jsonl, read_row_file, row_id, write_jsonl
from rlhf_lib.tracking import replacing, write_curve, write_json


def user(text):
    return [{"role": "user", "content": text}]


ROW = make_row("demo/facts", user("Où est\u2028l'été? 😀"), [{"content": "Ici.\r\n", "score": 7.5}])


def test_rows_survive_the_file(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    assert write_jsonl(path, [ROW, ROW]) == 2
    assert list(read_row_file(path)) == [ROW, ROW]
    assert "été" in path.read_text(encoding="utf-8")
    assert path.read_bytes().endswith(b"}\n")
    assert [p.name for p in path.parent.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("line", [b'{"a": ', b"\xff\xfe", b"[" * 100_000, b"nonsense"])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    with pytest.raises(SystemExit) as error:
        read_jsonl(path)
    assert f"{path}: line 3:" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SystemExit, match="x.jsonl: No such file"):
        read_jsonl(tmp_path / "x.jsonl")


@pytest.mark.parametrize(
    "record", [[1], {"id": "a"}, {**ROW, "prompt": []}, {**ROW, "responses": [{"content": "a", "score": None}]}]
)
def test_a_record_that_is_no_row_is_named(tmp_path, record):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(record) + "\n")
    with pytest.raises(SystemExit, match="record 1"):
        list(read_row_file(path))


def test_byte_order_mark_and_blank_lines_are_no_matter(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as file:
        file.write("new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_normalise_takes_out_case_punctuation_space_and_width():
    same = ["What is it", " what IS,it?? ", "WHAT\n\tis — «it»", "Ｗｈａｔ is it!"]
    assert {normalise(user(text)) for text in same} == {"user what is it"}


def test_normalise_keeps_roles_and_turns_apart():
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert normalise(turns) != normalise(user("a assistant b"))
    assert normalise(user("a")) != normalise([{"role": "system", "content": "a"}])


@given(st.text())
def test_normalise_of_normalised_content_is_itself(text):
    once = normalise(user(text)).removeprefix("user ")
    assert normalise(user(once)) == normalise(user(text))


def test_ids_depend_on_source_and_prompt_only():
    assert row_id("a", user("x")) == make_row("a", user("x"), [])["id"]
    assert len({row_id("a", user("x")), row_id("b", user("x")), row_id("a", user("y"))}) == 3
    assert row_id("a", user("x")).isalnum()


@pytest.mark.parametrize("value", [None, True, "8", [], float("nan"), float("inf"), 10**400])
def test_what_is_no_score(value):
    assert as_score(value) is None


def test_write_json_rounds_and_sorts(tmp_path):
    write_json(tmp_path / "m" / "x.json", {"b": 1 / 3, "a": [float("nan"), 2, True, "é"], "c": {"z": 123456789.0}})
    text = (tmp_path / "m" / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [None, 2, True, "é"], "b": 0.333333, "c": {"z": 123457000.0}}
    assert text.startswith('{\n  "a"')
    assert text.endswith("}\n")


def test_write_curve_has_the_union_of_the_columns(tmp_path):
    write_curve(tmp_path / "c.tsv", [{"step": 1, "loss": 1 / 3}, {"step": 2, "kl": 0.0, "loss": None}])
    assert (tmp_path / "c.tsv").read_text() == "step\tloss\tkl\n1\t0.333333\t\n2\t\t0\n"
