"""Columns by a map: inputs, paths, several columns, choices, ranks; and what is said of those that are left unused."""

import json

import pytest
from record_files import jsonl, write
from upstream import parse, parsed, row_of

from rlhf_lib.common.schema import check
from rlhf_lib.data.load.columns import used
from rlhf_lib.data.load.load import load
from rlhf_lib.data.load.params import LoadParams, SourceParams


def user(text):
    return [{"role": "user", "content": text}]


PAIR = {"prompt": "Q?", "chosen": "A", "rejected": "B"}


def of(record, **fields):
    """The prompt's last message, and the responses."""
    _, prompt, responses = row_of("file", record, **fields)
    return prompt[-1]["content"], responses


def said(folder, records, capsys, **fields):
    """What load prints of a source of these records, or the line it ends in."""
    path = write(folder, "a.jsonl", jsonl(records))
    values = {"sources": [{"reader": "file", "name": "mine", "path": path, **fields}]}
    try:
        load(folder / "raw", check(LoadParams, {**values, "instructions": 5, "num_proc": 1, "seed": 0}, "load"))
    except SystemExit as error:
        return str(error).replace(f"{folder}/", "")
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("record", "asked"),
    [
        ({"prompt": "Add.", "input": "1 and 2"}, "Add.\n\n1 and 2"),
        ({"prompt": "Add.", "input": ""}, "Add."),
        ({"prompt": "Add.", "input": " \n"}, "Add."),
        ({"prompt": "Add.", "input": None}, "Add."),
        ({"prompt": "", "input": "Q?"}, "Q?"),
        ({"prompt": [{"role": "system", "content": "S"}, *user("Add.")], "input": "1"}, "Add.\n\n1"),
        ({"prompt": "Add.", "input": "1", "chosen": "A", "rejected": "B"}, "Add.\n\n1"),
        ({"prompt": "Add.", "input": "1", "responses": ["A"]}, "Add.\n\n1"),
    ],
)
def test_an_input_goes_below_its_prompt(record, asked):
    assert of(record)[0] == asked


def test_an_input_that_is_the_prompt_is_no_input_too():
    assert of({"input": "Q?", "output": "A"}, columns={"prompt": "input", "completion": "output"}) == (
        "Q?",
        [("A", None)],
    )
    assert of({"input": {"messages": user("Q?")}}, columns={"prompt": "input.messages"}) == ("Q?", [])
    assert of({"prompt": "Q?", "input": 3}, columns={"input": None}) == ("Q?", [])
    assert parsed("file", {"prompt": "Q?", "input": 3})[0].text == "input must be a text"


@pytest.mark.parametrize(
    ("record", "columns", "expected"),
    [
        ({"a": {"b": {"c": "Q?"}}}, {"prompt": "a.b.c"}, ("Q?", [])),
        ({"a.b": "Q?", "a": {"b": "R?"}}, {"prompt": "a.b"}, ("Q?", [])),  # a name with a dot goes first
        (
            {"prompt": "Q?", "to": [{"say": {"text": "A"}}, {"say": {"text": "B"}}]},
            {"responses": "to.say.text"},
            ("Q?", [("A", None), ("B", None)]),
        ),
        (
            {"prompt": "Q?", "to": [{"answer": "A", "n": 2}, {"answer": "B", "n": 1}]},
            {"responses": "to", "ranks": "to.n"},
            ("Q?", [("A", -2.0), ("B", -1.0)]),
        ),
        (
            {"prompt": "Q?", "x": "A", "y": "B", "sx": "1", "sy": 3},
            {"responses": ["x", "y"], "scores": ["sx", "sy"]},
            ("Q?", [("A", 1.0), ("B", 3.0)]),
        ),
        (
            {"prompt": "Q?", "x": {"text": "A"}, "y": {"text": "B"}, "rx": 1, "ry": 2},
            {"responses": ["x.text", "y.text"], "ranks": ["rx", "ry"]},
            ("Q?", [("A", -1.0), ("B", -2.0)]),
        ),
        ({"prompt": "Q?", "responses": '["A", "B"]', "scores": "[1, 2]"}, {}, ("Q?", [("A", 1.0), ("B", 2.0)])),
        ({"prompt": "Q?", "responses": "['A', \"it's\"]"}, {}, ("Q?", [("A", None), ("it's", None)])),
        ({"prompt": "[1]", "response": "['A']"}, {}, ("[1]", [("['A']", None)])),  # a text that is to be a text
    ],
)
def test_paths_lists_of_columns_and_lists_as_text(record, columns, expected):
    assert of(record, columns=columns) == expected


@pytest.mark.parametrize(
    ("record", "columns", "labels"),
    [
        ({"choice": 1}, {"responses": ["a", "b"]}, [0.0, 1.0]),
        ({"choice": "a"}, {"responses": ["a", "b"]}, [1.0, 0.0]),
        ({"preference_strength": -2}, {"responses": ["a", "b"]}, [1.0, 0.0]),
        # what the map names goes before what is called like ours
        ({"choice": 1, "x": -1}, {"responses": ["a", "b"], "preference_strength": "x"}, [1.0, 0.0]),
        ({"score": 5, "choice": 0}, {"responses": ["a", "b"]}, [1.0, 0.0]),
    ],
)
def test_choices(record, columns, labels):
    prompt, responses = of({"prompt": "Q?", "a": "A", "b": "B", **record}, columns=columns)
    assert (prompt, responses) == ("Q?", list(zip("AB", labels, strict=True)))


def test_a_chosen_answer_of_many():
    answers = [{"text": text} for text in "ABC"]
    assert of({"prompt": "Q?", "responses": answers, "choice": 2})[1] == [("A", 0.0), ("B", 0.0), ("C", 1.0)]


@pytest.mark.parametrize(
    ("record", "reason", "text"),
    [
        ({"choice": 5}, "no_choice", "choice 5 is no response; if it should be, set load.sources[...].choices"),
        ({"preference_strength": 0}, "no_choice", "preference_strength 0 prefers none of the two"),
        ({"ranks": [1]}, "scores_differ_in_number", "ranks must be a list with one for each of the responses"),
        ({"responses": ["A"], "preference_strength": 1}, "malformed", "preference_strength compares two responses"),
        ({"scores": ["3 stars", 1]}, "response_no_score", "'3 stars' is not a score: A"),
        ({"ranks": ["first", 2]}, "response_no_score", "'first' is not a score: A"),
        ({"scores": [None, 1]}, "response_no_score", "A"),
    ],
)
def test_what_no_preference_can_be_made_of(record, reason, text):
    rejected = parsed("file", {"prompt": "Q?", "responses": ["A", "B"], **record})[0]
    assert (rejected.reason, rejected.text[: len(text)]) == (reason, text)


@pytest.mark.parametrize(
    ("label", "given"),
    [
        ("spam", ["unknown_label"]),
        (0.5, ["label_is_a_grade"]),
        ("4/5", ["label_is_a_grade"]),
        (None, ["response_no_score", "no_usable_response"]),
        ("", ["response_no_score", "no_usable_response"]),
    ],
)
def test_a_label_is_a_thumb(label, given):
    reasons, _ = parse("file", {"prompt": "Q?", "completion": "A", "label": label})
    assert reasons == given
    assert of({"prompt": "Q?", "completion": "A", "label": label}, columns={"label": None}) == ("Q?", [("A", None)])


def test_grades_as_labels_stop_the_stage(tmp_path, capsys):
    """Of such a file each 1, the worst grade, would be a thumb up."""
    records = [{"prompt": f"{n}?", "completion": "A", "stars": 1 + n} for n in range(5)]
    assert said(tmp_path, records, capsys, columns={"label": "stars"}) == (
        "params.yaml: load.sources[0]: a.jsonl: line 2: label_is_a_grade: label 2: a thumb is true or false, 1 or 0, "
        "yes or no, up or down, good or bad; if these are grades, set load.sources[...].columns to {score: the column}"
        "; columns: {label: null} leaves the column alone"
    )
    assert said(tmp_path, records, capsys, columns={"score": "stars"}) == "mine: 5 rows\n"


def test_numbers_from_1_stop_the_stage(tmp_path, capsys):
    """Of such a file each 1 would name the wrong answer, so nothing of it is used."""
    records = [{"prompt": f"{n}?", "a": "A", "b": "B", "best": 1 + n % 2} for n in range(4)]
    columns = {"responses": ["a", "b"], "choice": "best"}
    assert said(tmp_path, records, capsys, columns=columns) == (
        "params.yaml: load.sources[0]: a.jsonl: line 2: choice_beyond_last: choice 2 of 2 responses; set "
        "load.sources[...].choices to the values in the order of the responses ([1, 2])"
    )
    assert said(tmp_path, records, capsys, columns=columns, choices=[1, 2]) == "mine: 4 rows\n"


@pytest.mark.parametrize(
    ("records", "columns", "unused"),
    [
        ([{"prompt": "Q?", "completion": "A"}], {}, ""),
        ([{"prompt": "Q?", "completion": "A", "id": 1}, {"prompt": "R?", "b": 2, "id": 2}], {}, "id, b"),
        ([{"q": "Q?", "a": "A", "note": 1}], {"prompt": "q", "completion": "a"}, "note"),
        ([{"prompt": "Q?", "chosen": "A", "rejected": "B", "score_chosen": 1}], {}, "score_chosen"),
        ([{"prompt": "Q?", "messages": user("Q?"), "chosen": "A", "rejected": "B"}], {}, "messages"),
        ([{"prompt": "Q?", "response": "A", "score": 1, "rank": 2}], {}, "rank"),
        ([{"prompt": "Q?", "response": "A", "score": 1, "n": 2}], {"rank": "n"}, "score"),
        ([{"prompt": "Q?", "completion": "A", "label": 1, "split": "train"}], {"label": None}, "label"),
        ([{"x": {"y": "Q?", "z": 1}, "w": 1}], {"prompt": "x.y"}, "w"),
        ([{"prompt": "Q?", "\x1b[2J": 1}], {}, "[2J"),
        # tables that were put together: what one has not is null
        ([PAIR | {"completion": None}, dict.fromkeys(PAIR) | {"prompt": "R?", "completion": "A"}], {}, ""),
        ([PAIR | {"completion": ""}], {}, "completion"),
        ([{"prompt": "Q?"} | {f"column {n:03}": 1 for n in range(99)}], {}, "column 000, "),
    ],
)
def test_unused_columns_are_named_once(tmp_path, capsys, records, columns, unused):
    first, *rest = said(tmp_path, records * 70, capsys, columns=columns).splitlines()
    assert first == f"mine: {70 * len(records)} rows"
    assert len(rest) == bool(unused)
    assert not unused or rest[0].startswith(f"mine: columns not used: {unused}")
    assert len("".join(rest)) < 450


def test_columns_that_may_hold_the_missing_answers(tmp_path, capsys):
    """Names are those of `columns`, to the letter: a table of another spelling would else be one of prompts alone."""
    told = said(tmp_path, [{"prompt": "Q?", "Chosen": "A", "Rejected": "B"}], capsys)
    hint = "no row has an answer: if one of these does, set load.sources[...].columns"
    assert told == f"mine: 1 rows\nmine: columns not used: Chosen, Rejected; {hint}\n"


def test_a_column_of_the_map_that_some_records_lack(tmp_path, capsys):
    records = [{"prompt": "Q?", "completion": "A", "sys": "S"}, {"prompt": "R?", "completion": "B"}]
    assert said(tmp_path, records, capsys, columns={"system": "sys"}) == "mine: 2 rows\n"
    assert said(tmp_path, records, capsys, columns={"system": "sytem"}) == (
        "params.yaml: load.sources[0].columns.system: no record has 'sytem'; there are: prompt, completion, sys"
    )


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        (
            {"columns": {"prompt": ["a", "b"]}},
            "prompt is one column, not a list; only responses, scores, ranks may be several",
        ),
        ({"columns": {"prompt": 3}}, "load.sources[0].columns.prompt: must be a text, got 3"),
        ({"columns": {"responses": ["a", 3]}}, "load.sources[0].columns.responses[1]: must be a text, got 3"),
        ({"choices": [None]}, "load.sources[0].choices[0]: must be a text, got None"),
        ({"choices": "A"}, "load.sources[0].choices: must be a list, got 'A'"),
    ],
)
def test_faulty_maps(tmp_path, capsys, fields, fault):
    assert fault in said(tmp_path, [{"prompt": "Q?"}], capsys, **fields)


def test_what_is_used_is_what_changes_a_row():
    """Every other column may be taken out, and the row is the same."""
    record = {
        **{"prompt": "Q?", "input": "I", "system": "S", "split": "test", "response": "A", "messages": user("R?")},
        **{"score": 3, "label": True, "choice": 1, "other": {"a": [1]}},
    }
    for columns in ({}, {"label": "label"}, {"prompt": "messages"}, {"split": None}, {"completion": "other.a"}):
        source = SourceParams(reader="file", path="x", columns=columns)
        kept = {name: value for name, value in record.items() if name in used(record, source)}
        assert kept != record
        assert json.dumps(parsed("file", kept, columns=columns)) == json.dumps(parsed("file", record, columns=columns))
