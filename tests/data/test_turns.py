"""Turns as lists of texts, put together to dialogues; and what only looks like them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from upstream import dialogue

from rlhf_lib.data.load.turns import put_together


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"prompt": ["Q?"], "chosen": ["A"], "rejected": ["B"], "split": "test"},
            {"chosen": dialogue("Q?", "A"), "rejected": dialogue("Q?", "B"), "split": "test"},
        ),
        (
            {"prompt": '["Hi", "Q?"]', "responses": ['["Hello", "A"]', '["Yes?", null]'], "scores": [1, 0]},
            {
                "responses": [dialogue("Hi", "Hello", "Q?", "A"), dialogue("Hi", "Yes?", "Q?", "")],
                "scores": [1, 0],
            },
        ),
        ({"prompt": "['Q?']", "completion": "['A']"}, {"completion": dialogue("Q?", "A")}),
        ({"messages": ["Q?", "A", "R?"]}, {"messages": dialogue("Q?", "A", "R?")}),
        ({"prompt": ["Q?"], "response": ["\ud83d"]}, {"response": dialogue("Q?", "\ud83d")}),  # load rejects the text
    ],
)
def test_turns_become_dialogues(fields, expected):
    before = repr(fields)
    assert put_together(fields) == expected
    assert repr(fields) == before


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": '["a", "b"]', "response": "b"},  # a question about a list
        {"prompt": "Which is text?", "response": '["b"]'},  # an answer that is one
        {"prompt": '["a", "b"]', "chosen": '["a"]', "rejected": '["b"]'},  # sorted in three
        {"prompt": "[1, 2]", "response": "[2, 1]"},
        {"prompt": "[]", "response": "[]"},
        {"prompt": [None], "response": [None]},
        {"prompt": '["a"', "response": '["b"]'},
        {"prompt": '["a"]'},
        {"prompt": dialogue("Q?"), "response": ["A"]},
        {"prompt": ["Q?"], "chosen": ["A"], "rejected": "B"},
        {"prompt": "Q?", "responses": ["A", "B"]},
        {"prompt": "Q?", "responses": "A"},
        {"messages": dialogue("Q?", "A")},
        {"messages": ""},
    ],
)
def test_what_only_looks_like_turns_is_left(fields):
    assert put_together(fields) == fields


@given(st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=4))
def test_every_text_is_said_once_by_its_side(turns):
    asked, answered = map(list, zip(*turns, strict=True))
    (said,) = put_together({"prompt": asked, "completion": answered}).values()
    assert [message["content"] for message in said if message["role"] == "user"] == asked
    assert [message["content"] for message in said if message["role"] == "assistant"] == answered
    assert [message["role"] for message in said] == ["user", "assistant"] * len(turns)
