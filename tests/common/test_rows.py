import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lib.common.files import replacing, write_curve, write_json
from rlhf_lib.common.rows import (
    as_score,
    clean_text,
    is_blank,
    is_text,
    make_row,
    normalise,
    parse_row,
    read_jsonl,
    row_id,
    some,
    stream_jsonl,
    write_jsonl,
)


def user(text):
    return [{"role": "user", "content": text}]


ROW = make_row("demo/facts", user("Où est\u2028l'été? 😀"), [{"content": "Ici.\r\n", "score": 7.5}])


def test_some_rows_are_a_draw_from_all_sources_of_a_file():
    rows = [make_row(source, user(str(i)), []) for source in ("first", "second") for i in range(200)]
    drawn = some(rows, 100)
    assert len(drawn) == 100 and drawn == [row for row in rows if row in drawn]  # in their order
    assert 35 <= sum(row["source"] == "first" for row in drawn) <= 65
    assert all(row in drawn for row in some(rows, 20))
    assert some(rows, None) == some(rows, 400) == some(rows, 999) == rows and some(rows, 0) == []


def test_rows_survive_the_file(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    assert write_jsonl(path, [ROW, ROW]) == 2
    assert read_jsonl(path) == [ROW, ROW]
    assert [parse_row(line, "x") for line in path.read_bytes().splitlines()] == [ROW, ROW]
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


def changed(**fields):
    return {**ROW, **fields}


@pytest.mark.parametrize(
    "value",
    [
        [1],
        None,
        {"id": "a"},
        changed(id=3),
        changed(source="\ud800"),
        changed(split="validation"),
        changed(prompt=[]),
        changed(prompt=[{"role": "human", "content": "a"}]),
        changed(prompt=[{"role": "user", "content": "\ud800"}]),
        changed(responses=None),
        changed(responses=[{"content": "a"}]),
        changed(responses=[{"content": None, "score": 1.0}]),
        changed(responses=[{"content": "a", "score": "1"}]),
        changed(responses=[{"content": "a", "score": float("nan")}]),
    ],
)
def test_a_value_that_is_no_row_is_named(value):
    with pytest.raises(SystemExit) as error:
        parse_row(json.dumps(value), "rows.jsonl: line 7")
    assert str(error.value).startswith("rows.jsonl: line 7: not a row of id, source, split, prompt and responses")


def test_a_row_may_have_no_responses_and_a_response_no_score():
    for responses in ([], [{"content": "a", "score": None}]):
        assert parse_row(json.dumps(changed(responses=responses, more=1)), "x") == changed(responses=responses)


@pytest.mark.parametrize("line", [b'{"a": ', b"\xff\xfe", b"[" * 100_000, b"nonsense", b""])
def test_a_line_that_is_no_json_is_named(line):
    with pytest.raises(SystemExit) as error:
        parse_row(line, "rows.jsonl: line 7")
    assert str(error.value).startswith("rows.jsonl: line 7: not a line of JSON")
    assert "\n" not in str(error.value)


def test_a_record_that_is_no_object_is_named_once_it_is_reached(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n[2]\n')
    records = stream_jsonl(path)
    assert next(records) == {"a": 1}
    with pytest.raises(SystemExit, match=r"x.jsonl: record 2: must be a JSON object"):
        next(records)


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_json_has_not_is_named(tmp_path, constant):
    path = tmp_path / "x.jsonl"
    path.write_text(f'{{"a": "NaN"}}\n{{"a": {constant}}}\n')
    with pytest.raises(SystemExit, match=rf"x.jsonl: line 2: not a line of JSON in UTF-8: {constant} is no number"):
        read_jsonl(path)


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


def test_clean_text_ends_its_lines_alike_and_has_no_space_around():
    assert clean_text(" \r\na\r\n b\rc\n\td \n") == "a\n b\nc\n\td"


@pytest.mark.parametrize(("text", "blank"), [("", True), (" \n\u3000", True), ("\u200b\ufeff\0", True), (" .", False)])
def test_blank_is_what_shows_nothing(text, blank):
    assert is_blank(text) is blank


@pytest.mark.parametrize(
    ("value", "text"), [("é😀", True), ("", True), ("\ud800", False), (None, False), (b"a", False)]
)
def test_a_text_is_what_utf8_can_hold(value, text):
    assert is_text(value) is text


def test_ids_depend_on_source_and_prompt_only():
    assert row_id("a", user("x")) == make_row("a", user("x"), [])["id"]
    assert len({row_id("a", user("x")), row_id("b", user("x")), row_id("a", user("y"))}) == 3
    assert row_id("a", user("x")).isalnum()


@pytest.mark.parametrize("value", [None, True, "8", [], float("nan"), float("inf"), 10**400])
def test_what_is_no_score(value):
    assert as_score(value) is None


@pytest.mark.parametrize("value", [8, -0.5, 0])
def test_what_is_a_score(value):
    assert (as_score(value), type(as_score(value))) == (value, float)


def test_write_json_rounds_and_sorts(tmp_path):
    write_json(tmp_path / "m" / "x.json", {"b": 1 / 3, "a": [float("nan"), 2, True, "é"], "c": {"z": 123456789.0}})
    text = (tmp_path / "m" / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [None, 2, True, "é"], "b": 0.333333, "c": {"z": 123457000.0}}
    assert text.startswith('{\n  "a"')
    assert text.endswith("}\n")


def test_write_curve_has_the_union_of_the_columns(tmp_path):
    write_curve(tmp_path / "c.tsv", [{"step": 1, "loss": 1 / 3}, {"step": 2, "kl": 0.0, "loss": None}])
    assert (tmp_path / "c.tsv").read_text() == "step\tloss\tkl\n1\t0.333333\t\n2\t\t0\n"


def test_write_curve_has_the_columns_asked_for_even_without_rows(tmp_path):
    for rows, lines in (([], ""), ([{"loss": 0.5, "more": 2}], "\t0.5\t2\n")):
        write_curve(tmp_path / "c.tsv", rows, ("step", "loss"))
        assert (tmp_path / "c.tsv").read_text() == f"step\tloss{chr(9) + 'more' if rows else ''}\n{lines}"


def test_write_curve_leaves_cells_empty_where_there_is_no_number(tmp_path):
    write_curve(tmp_path / "c.tsv", [{"step": 1, "a": float("nan"), "b": None, "c": float("-inf"), "d": 0.0}])
    assert (tmp_path / "c.tsv").read_text() == "step\ta\tb\tc\td\n1\t\t\t\t0\n"
