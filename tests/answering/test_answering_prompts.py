"""Prompts of all kinds of files, with their references."""

import json
import re

import pytest

from rlhf_lib.answering import prompts

USER = [{"role": "user", "content": "Hi?"}]
LONG = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
]


@pytest.fixture
def read(tmp_path):
    """A function that writes a file and reads its prompts, as pairs of prompt and reference."""

    def read(name, text, **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return [(one.prompt, one.reference) for one in prompts.read(str(path), **options)]

    return read


@pytest.mark.parametrize(
    ("record", "reference"),
    [
        ({"prompt": "Hi?"}, None),
        ("Hi?", None),
        ({"prompt": USER}, None),
        ({"messages": USER}, None),
        ({"messages": [*USER, {"role": "assistant", "content": "Yes."}]}, "Yes."),
        ({"prompt": "Hi?", "reference": "Yes."}, "Yes."),
        ({"prompt": "Hi?", "answer": "Yes.", "response": "No."}, "Yes."),
        ({"prompt": "Hi?", "completion": "Yes."}, "Yes."),
        ({"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}, "Yes."),
        ({"prompt": "Hi?", "responses": ["No.", "Yes."], "scores": [1, 2]}, "Yes."),
        ({"prompt": "Hi?", "responses": [{"content": "Yes.", "score": None}, {"content": "a", "score": None}]}, "Yes."),
        ({"prompt": "Hi?", "response": "", "split": "what?"}, None),
        ({"prompt": "Hi?", "reference": " "}, None),
    ],
)
def test_a_record_has_a_prompt_and_may_have_a_reference(read, record, reference):
    assert read("p.jsonl", json.dumps(record) + "\n") == [(USER, reference)]


def test_dialogues_keep_their_turns(read):
    (found,) = read("p.jsonl", json.dumps({"prompt": [*LONG, *USER]}))
    assert found == ([*LONG, *USER], None)


ANSWER = {"role": "assistant", "content": "Yes."}
MORE = [*USER, ANSWER, {"role": "user", "content": "Why?"}]


@pytest.mark.parametrize(
    ("record", "prompt", "reference"),
    [
        ({"messages": MORE}, MORE, None),
        ({"messages": [*MORE, ANSWER]}, MORE, "Yes."),
        ({"messages": json.dumps(MORE)}, MORE, None),
        ({"messages": [{"from": turn["role"], "value": turn["content"]} for turn in MORE]}, MORE, None),
        ({"messages": MORE, "system": "Be kind."}, [LONG[0], *MORE], None),
        ({"messages": MORE, "reference": "So."}, MORE, "So."),
        ({"chosen": MORE, "rejected": MORE}, MORE, None),
        ({"prompt": "Hi?", "completion": MORE[1:]}, MORE, None),
        ({"prompt": "Hi?", "response": "Yes.", "messages": MORE}, USER, "Yes."),
    ],
)
def test_a_dialogue_that_ends_on_the_users_turn_is_answered_at_its_end(read, record, prompt, reference):
    assert read("p.jsonl", json.dumps(record) + "\n") == [(prompt, reference)]


def test_a_dialogue_that_ends_on_no_turn_to_answer_is_told(read):
    with pytest.raises(SystemExit, match="line 1: malformed: a prompt must be a text, or messages that end on the"):
        read("p.jsonl", json.dumps({"messages": [*MORE[:2], LONG[0]]}) + "\n")


def test_a_folder_is_told_with_the_files_that_it_holds(tmp_path):
    with pytest.raises(SystemExit, match=r"a folder without files of prompts \(\.jsonl, .*\.txt\)"):
        prompts.read(str(tmp_path))
    for name, hint in (
        ("a.csv", "*.csv"),
        ("b.jsonl.gz", "*.csv"),
        ("c.jsonl.gz", "*.jsonl.gz"),
        *((f"{i}.txt", "*.txt") for i in range(3)),
    ):
        (tmp_path / name).touch()
        (tmp_path / f"{name}.md").touch()
        if not name.startswith(("0", "1")):
            with pytest.raises(SystemExit, match=f"a folder; name its files, such as '.*{re.escape(hint)}'"):
                prompts.read(str(tmp_path))


def test_globs_name_several_files(tmp_path):
    for name, text in (
        ("b.txt", "Hi?\n"),
        ("a.txt", "A?\n\nB?\n"),
        ("a.csv", "prompt\nC?\n"),
        ("b.csv", "prompt\nD?\n"),
    ):
        (tmp_path / name).write_text(text)
    said = [(one.number, one.prompt[0]["content"]) for one in prompts.read(str(tmp_path / "*.txt"))]
    assert said == [(1, "A?"), (2, "B?"), (3, "Hi?")]
    assert [one.prompt[0]["content"] for one in prompts.read(str(tmp_path / "*.csv"))] == ["C?", "D?"]
    assert prompts.named(str(tmp_path / "*.txt")) == [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]


def test_tables_and_texts(read):
    table = 'prompt,reference\n"Hi?",Yes.\n"Say ""a"", b\nand c",\n'
    expected = [(USER, "Yes."), ([{"role": "user", "content": 'Say "a", b\nand c'}], None)]
    assert read("p.csv", table) == expected
    assert read("p.tsv", "prompt\tanswer\nHi?\tYes.\n") == expected[:1]
    assert read("p.txt", "\ufeffHi?\n\n  Hi?  \r\n") == [(USER, None)] * 2
    assert read("p.csv", "Question,Gold\nHi?,Yes.\n", prompt_column="Question", reference_column="Gold") == expected[:1]
    assert read("p.txt", "Hi?\nmore\nand more\n", most=1) == [(USER, None)]


def test_other_columns_are_kept_for_reward_functions(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"id": "a", "prompt": "Hi?", "solution": 3}\n')
    (found,) = prompts.read(str(tmp_path / "p.jsonl"))
    assert found.columns == {"id": "a", "solution": 3} and found.number == 1 and found.place.endswith("line 1")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": 3}\n', ["line 2: malformed: a prompt must be a text"]),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": " "}\n', ["line 2: empty prompt"]),
        (
            "p.jsonl",
            '{"question": "a"}\n',
            ["line 1: no prompt in it; its columns are question: name the prompt's with --prompt_column"],
        ),
        ("p.jsonl", '{"prompt": "a"}\n{"prom', ["line 2: not JSON"]),
        ("p.jsonl", "[1]\n", ["line 1: must be an object with a prompt, or a text"]),
        (
            "p.jsonl",
            '{"messages": [{"role": "boss", "content": "a"}]}\n',
            ["line 1: unknown role: message 1: role 'boss'; correct it"],
        ),
        ("p.txt", b"a\n\xff\n", ["line 2: not UTF-8 (at byte 1)"]),
        ("p.txt", "\n", ["holds no prompts"]),
        ("p.docx", "x", ["unknown kind of file", ".txt with a prompt on each line"]),
    ],
)
def test_a_fault_is_told_with_its_place_in_one_line(read, name, text, words):
    with pytest.raises(SystemExit) as told:
        read(name, text)
    assert all(word in told.value.code for word in words) and "\n" not in told.value.code, told.value.code


def test_a_column_that_is_not_there_is_told(read):
    with pytest.raises(SystemExit, match=r"row 1: no column 'Q' \(--prompt_column\); it has prompt"):
        read("p.csv", "prompt\nHi?\n", prompt_column="Q")
    with pytest.raises(SystemExit, match=r"missing\.txt: cannot be read"):
        prompts.read("missing.txt")
