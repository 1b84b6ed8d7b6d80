import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upstream import dialogue

from rlhf_lib.common.rows import ROLES, is_text, row_id
from rlhf_lib.data.load.columns import parse, used
from rlhf_lib.data.load.messages import answer, as_messages, last_answer, user_prompt
from rlhf_lib.data.load.params import COLUMNS as NAMES
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.load.reader import Rejected


def source(**columns):
    return SourceParams(reader="file", name="mine", path="x.csv", columns=columns)


def outcome(raw, **columns):
    """Reasons of what was rejected, and the prompt and responses (text, score) of the row; None without one."""
    items = list(parse(raw, source(**columns)))
    rows = [item for item in items if not isinstance(item, Rejected)]
    assert len(rows) <= 1
    row = None
    if rows:
        row = rows[0]["prompt"], [(response["content"], response["score"]) for response in rows[0]["responses"]]
    return [item.reason for item in items if isinstance(item, Rejected)], row


def system(text):
    return {"role": "system", "content": text}


def sharegpt(*texts):
    return [{"from": ("human", "gpt")[i % 2], "value": text, "weight": 1} for i, text in enumerate(texts)]


Q = dialogue("Q?")
LONG = dialogue("Hi", "Hello", "Q?")


@pytest.mark.parametrize(
    ("raw", "prompt", "responses"),
    [
        ({"prompt": "Q?", "chosen": "A", "rejected": "B"}, Q, [("A", 1.0), ("B", 0.0)]),
        (
            {"prompt": "Q?", "chosen": "A", "rejected": "B", "score_chosen": 7, "score_rejected": "-2.5"},
            Q,
            [("A", 7.0), ("B", -2.5)],
        ),
        ({"prompt": "Q?", "chosen": "A", "rejected": "B", "score_chosen": 7}, Q, [("A", 1.0), ("B", 0.0)]),
        ({"prompt": LONG, "chosen": "A", "rejected": dialogue("", "B")[1:]}, LONG, [("A", 1.0), ("B", 0.0)]),
        ({"chosen": [*LONG, *dialogue("Q?", "A")[1:]], "rejected": "B"}, LONG, [("A", 1.0), ("B", 0.0)]),
        (
            {
                "prompt": "Hi",
                "chosen": [*dialogue("Hi", "Hello", "Q?", "A")],
                "rejected": sharegpt("Hi", "Hello", "Q?", "B"),
            },
            LONG,
            [("A", 1.0), ("B", 0.0)],
        ),
        ({"prompt": "Q?", "response": "A", "score": "7.5"}, Q, [("A", 7.5)]),
        ({"prompt": LONG, "response": "A", "score": 0}, LONG, [("A", 0.0)]),
        ({"prompt": "Q?", "response": "A"}, Q, [("A", None)]),
        ({"prompt": "Q?", "completion": "A"}, Q, [("A", None)]),
        ({"prompt": Q, "completion": dialogue("", "A")[1:]}, Q, [("A", None)]),
        ({"prompt": "Q?", "responses": ["A", "B"], "scores": ["1e1", 2]}, Q, [("A", 10.0), ("B", 2.0)]),
        ({"prompt": "Q?", "responses": ["A", "B"]}, Q, [("A", None), ("B", None)]),
        (
            {"prompt": "Q?", "responses": [{"content": "A", "score": 1}, {"text": "B", "score": "2"}]},
            Q,
            [("A", 1.0), ("B", 2.0)],
        ),
        (
            {"prompt": "Q?", "responses": [{"response": "A"}, {"answer": "B", "score": None}, "C"]},
            Q,
            [("A", None), ("B", None), ("C", None)],
        ),
        ({"prompt": "Q?", "responses": [{"text": "A", "score": 1}], "scores": [5]}, Q, [("A", 5.0)]),
        ({"prompt": "Q?", "responses": []}, Q, []),
        ({"prompt": "Q?", "responses": None}, Q, []),
        ({"messages": dialogue("Hi", "Hello", "Q?", "A")}, LONG, [("A", None)]),
        ({"messages": dialogue("Q?", "A", "Thanks!")}, Q, [("A", None)]),
        ({"messages": sharegpt("Q?", "A"), "score": 3}, Q, [("A", 3.0)]),
        ({"messages": [{"from": "system", "value": "S"}, *sharegpt("Q?", "A")]}, [system("S"), *Q], [("A", None)]),
        ({"messages": Q, "prompt": "other"}, Q, []),
        ({"prompt": "Q?", "messages": dialogue("Q?", "A")}, Q, [("A", None)]),
        ({"prompt": "Q?"}, Q, []),
        ({"prompt": LONG, "other": 1}, LONG, []),
        ({"prompt": "Q?", "system": "S"}, [system("S"), *Q], []),
        ({"messages": dialogue("Q?", "A"), "system": "S"}, [system("S"), *Q], [("A", None)]),
        ({"prompt": [system("own"), *Q], "system": "S", "response": "A"}, [system("own"), *Q], [("A", None)]),
        ({"prompt": "Q?", "system": None}, Q, []),
        ({"prompt": "Q?", "system": " "}, Q, []),
    ],
)
def test_shapes(raw, prompt, responses):
    assert outcome(raw) == ([], (prompt, responses))


@pytest.mark.parametrize(
    ("raw", "columns", "row"),
    [
        (
            {"Question": "Q?", "Answer": "A", "Score": "3"},
            {"prompt": "Question", "response": "Answer", "score": "Score"},
            (Q, [("A", 3.0)]),
        ),
        (
            {"Direct Prompt": "Q?", "Conversation Prompt": None, "Example Response": "A", "Original": "o"},
            {"prompt": "Direct Prompt", "completion": "Example Response"},
            (Q, [("A", None)]),
        ),
        ({"prompt": "A", "response": "Q?"}, {"prompt": "response", "response": "prompt"}, (Q, [("A", None)])),
        ({"messages": Q}, {"prompt": "messages"}, (Q, [])),
        ({"prompt": "Q?", "text": "A", "messages": LONG, "chosen": "x"}, {"response": "text"}, (Q, [("A", None)])),
        ({"prompt": "Q?", "text": "A", "score": 2}, {"response": "text"}, (Q, [("A", 2.0)])),
    ],
)
def test_columns_by_other_names(raw, columns, row):
    assert outcome(raw, **columns) == ([], row)


def test_the_row():
    (row,) = parse({"prompt": "Q?", "system": "S"}, source())
    assert row == {
        "id": row_id("mine", [system("S"), *Q]),
        "source": "mine",
        "split": "train",
        "prompt": [system("S"), *Q],
        "responses": [],
    }


@pytest.mark.parametrize(
    ("raw", "reasons"),
    [
        *[(raw, ["malformed"]) for raw in (None, 3, "text", [], [{"prompt": "Q?"}])],
        *[({"prompt": prompt}, ["malformed"]) for prompt in (3, [], {}, [1], dialogue("Q?", "A"), [system("S")])],
        ({"prompt": "half a pair \ud800"}, ["malformed"]),
        *[({"prompt": prompt}, ["empty_prompt"]) for prompt in (None, "", " \u200b\n", dialogue("Hi", "Hello", " "))],
        ({"prompt": "", "response": "A"}, ["empty_prompt"]),
        ({"prompt": "Q?", "system": 3}, ["malformed"]),
        ({"prompt": "Q?", "response": 42}, ["malformed"]),
        ({"prompt": "Q?", "response": dialogue("Q?")}, ["malformed"]),
        ({"prompt": "Q?", "response": None}, ["response_empty", "no_usable_response"]),
        ({"prompt": "Q?", "completion": " "}, ["response_empty", "no_usable_response"]),
        *[
            ({"prompt": "Q?", "response": "A", "score": score}, ["response_no_score", "no_usable_response"])
            for score in ("", "NA", "nan", "inf", "1" * 5000, None, "good", [1], float("nan"), 10**400)
        ],
        ({"prompt": "Q?", "chosen": "A"}, ["missing_column"]),
        ({"prompt": "Q?", "rejected": "A"}, ["missing_column"]),
        ({"response": "A", "score": 1}, ["missing_column"]),
        ({"responses": ["A"]}, ["missing_column"]),
        ({"chosen": "A", "rejected": "B"}, ["missing_column"]),
        ({"prompt": "Q?", "chosen": "A", "rejected": 3}, ["malformed"]),
        ({"chosen": dialogue("Q?", "A"), "rejected": dialogue("Other?", "B")}, ["prompts_differ"]),
        ({"chosen": dialogue("Q?", "A")[1:], "rejected": dialogue("Q?", "B")[1:]}, ["malformed"]),
        ({"chosen": [system("S"), *dialogue("Q?", "A")[1:]], "rejected": "B"}, ["malformed"]),
        ({"prompt": "Q?", "chosen": "", "rejected": "B"}, ["response_empty", "no_usable_response"]),
        ({"prompt": "Q?", "responses": "A"}, ["malformed"]),
        ({"prompt": 3, "responses": ["A"]}, ["malformed"]),
        ({"prompt": "Q?", "responses": ["A", "B"], "scores": [1]}, ["scores_differ_in_number"]),
        ({"prompt": "Q?", "responses": ["A"], "scores": 1}, ["scores_differ_in_number"]),
        ({"messages": "text"}, ["malformed"]),
        ({"messages": [*Q, {"role": "agent", "content": "x"}]}, ["unknown_role"]),
        ({"messages": [*Q, {"role": ["user"], "content": "x"}]}, ["malformed"]),
        ({"messages": dialogue("Q?", "A")[1:]}, ["malformed"]),
        ({"messages": dialogue("Q?", "")}, ["response_empty", "no_usable_response"]),
    ],
)
def test_faulty_records(raw, reasons):
    assert outcome(raw) == (reasons, None)


@pytest.mark.parametrize(
    ("raw", "reasons", "responses"),
    [
        ({"chosen": "A", "rejected": " "}, ["response_empty"], [("A", 1.0)]),
        (
            {"chosen": "A", "rejected": "B", "score_chosen": 2, "score_rejected": None},
            ["response_no_score"],
            [("A", 2.0)],
        ),
        (
            {"responses": ["A", 3, "", {"text": None}, {"x": "y"}], "scores": [1, 2, 3, 4, 5]},
            ["response_malformed", "response_empty", "response_malformed", "response_malformed"],
            [("A", 1.0)],
        ),
        ({"responses": [{"text": "A", "score": 1}, {"text": "B"}]}, ["response_no_score"], [("A", 1.0)]),
    ],
)
def test_what_is_usable_is_kept(raw, reasons, responses):
    assert outcome({"prompt": "Q?", **raw}) == (reasons, (Q, responses))


@pytest.mark.parametrize(
    ("raw", "columns", "reason", "text"),
    [
        ({"q": 1, "a": 2}, {}, "no_known_column", "has the columns q, a; set load.sources[...].columns"),
        ({"q\ud800": 1}, {}, "no_known_column", "has the columns q?; set load.sources[...].columns"),
        (
            {"response": 1, "q": 2},
            {},
            "missing_column",
            "has no prompt, but response, q; set load.sources[...].columns",
        ),
        ({"prompt": 1}, {"score": "s"}, "missing_column", "has no s, but prompt; set load.sources[...].columns"),
        ({"prompt": 3}, {}, "malformed", "a prompt must be a text, or messages that end on the user's turn"),
    ],
)
def test_rejections_say_what_to_do(raw, columns, reason, text):
    assert list(parse(raw, source(**columns))) == [Rejected(reason, "mine", text)]


def test_names_of_columns_are_checked():
    source(**dict.fromkeys(NAMES, "x"))
    with pytest.raises(ValueError, match=r"^columns: no name 'promt'; the names are prompt, input, system, .*split$"):
        source(prompt="q", promt="q")


def test_message_lists():
    assert as_messages(sharegpt("Q?", "A")) == dialogue("Q?", "A")
    assert as_messages([]) is as_messages("text") is as_messages([*Q, None]) is None
    assert last_answer(dialogue("Hi", "Hello", "Q?", "A", "More?")) == (LONG, "A")
    assert last_answer(dialogue("", "A")[1:]) == ([], "A")
    assert last_answer(Q) is last_answer("text") is last_answer(None) is None
    assert answer("A") == ([], "A")
    assert user_prompt("Q?") == user_prompt(sharegpt("Q?")) == Q
    assert user_prompt(dialogue("Q?", "A")) is user_prompt(None) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["1.5", "NA", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text() | st.sampled_from(["role", "content", "from", "value", "text", "score"]), inner)
    ),
    max_leaves=6,
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": st.text()}), max_size=4)
SCORES = st.integers() | st.floats() | st.sampled_from(["1", "", None])
GOOD = {
    **dict.fromkeys(("prompt", "chosen", "rejected", "response", "completion"), st.text() | MESSAGES),
    **dict.fromkeys(("score", "score_chosen", "score_rejected", "rank", "label", "preference_strength"), SCORES),
    **dict.fromkeys(("system", "input"), st.text()),
    "split": st.sampled_from(["train", "test", "val", "", "other"]),
    "choice": st.integers(-1, 3) | st.text(),
    "messages": MESSAGES,
    "responses": st.lists(st.text() | st.fixed_dictionaries({"text": st.text(), "score": SCORES})),
    **dict.fromkeys(("scores", "ranks"), st.lists(SCORES)),
}
RECORDS = st.fixed_dictionaries({}, optional=GOOD)
REPLACED = st.builds(lambda record, name, value: {**record, name: value}, RECORDS, st.sampled_from(NAMES), JSON)
ONE = st.sampled_from([*NAMES, "other", "messages.content", "responses.text"])
COLUMNS = st.dictionaries(st.sampled_from(NAMES), ONE | st.none(), max_size=3) | st.fixed_dictionaries(
    {"responses": st.lists(ONE, max_size=3)}, optional={"choice": ONE, "scores": st.lists(ONE, max_size=3)}
)


@settings(max_examples=300, deadline=None)
@given(JSON | RECORDS | REPLACED, st.just({}) | COLUMNS)
def test_any_record_gives_sound_rows_or_rejections(raw, columns):
    items = list(parse(raw, source(**columns)))
    assert items
    for item in items:
        json.dumps(item, ensure_ascii=False, allow_nan=False).encode()
        if not isinstance(item, Rejected):
            assert item["prompt"][-1]["role"] == "user"
            assert item["prompt"][-1]["content"].strip()
            assert all(message["role"] in ROLES and is_text(message["content"]) for message in item["prompt"])
            assert all(is_text(r["content"]) and r["content"].strip() for r in item["responses"])
            assert all(r["score"] is None or isinstance(r["score"], float) for r in item["responses"])
            assert item["split"] in ("train", "test")
    if isinstance(raw, dict):
        assert used(raw, source(**columns)) <= raw.keys()
