"""Message lists with the roles and contents of others."""

import pytest

from rlhf_lib.data.load.columns import parse
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.load.reader import Rejected
from rlhf_lib.data.load.roles import Fault, read_messages

OURS = [("user", "Q?"), ("assistant", "A")]


def said(value, **role_map):
    messages = read_messages(value, role_map)
    return messages if isinstance(messages, Fault) else [(m["role"], m["content"]) for m in messages]


def listed(roles, key="role", content="content"):
    return [{key: role, content: text} for role, text in zip(roles, ("Q?", "A"), strict=True)]


@pytest.mark.parametrize(
    "value",
    [
        *[listed(["user", role], "from", "value") for role in ("gpt", "chatgpt", "bing", "bard", "assistant")],
        *[listed([role, "assistant"]) for role in ("human", "user", "prompter")],
        *[listed(["user", role]) for role in ("model", "ai", "bot")],
        [{"role": "user", "parts": [{"text": "Q?"}]}, {"role": "model", "parts": [{"text": "A"}]}],
        [{"role": "user", "content": [{"type": "text", "text": "Q?"}]}, {"role": "assistant", "content": ["A"]}],
        [
            {"role": "user", "content": [{"type": "input_text", "text": "Q?"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "A"}], "tool_calls": None},
        ],
        [{"role": "user", "text": "Q?", "name": "Ann"}, {"role": "assistant", "text": "A", "tool_calls": []}],
    ],
)
def test_forms(value):
    assert said(value) == OURS


def test_several_parts_are_paragraphs():
    parts = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    assert said([{"role": "user", "content": parts}]) == [("user", "One.\n\nTwo.")]


def test_the_developer_is_the_system():
    assert said([{"role": "developer", "content": "S"}, *listed(["user", "assistant"])]) == [("system", "S"), *OURS]


def test_a_role_map_adds_roles_and_goes_before_ours():
    assert said(listed(["customer", "agent"]), customer="user", agent="assistant") == OURS
    assert said(listed(["assistant", "user"]), user="assistant", assistant="user") == OURS
    assert said([{"role": "developer", "content": "Q?"}], developer="user") == [("user", "Q?")]
    assert said([{"role": "tool", "content": "Q?"}], tool="user") == [("user", "Q?")]


def test_keys_of_other_forms_are_null_where_parquet_has_them_all():
    assert said([{"role": None, "content": None, "from": "human", "value": "Q?"}]) == [("user", "Q?")]


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (
            listed(["user", "agent"]),
            Fault("unknown_role", "message 2: role 'agent'; set load.sources[...].role_map, such as {agent: user}"),
        ),
        (
            listed(["user", "observation"]),
            Fault(
                "tool_calls",
                "message 2: is of a tool (role 'observation'), which no stage here can do; leave such dialogues out",
            ),
        ),
        (
            [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}],
            Fault("tool_calls", "message 2: calls a tool, which no stage here can do; leave such dialogues out"),
        ),
        (
            [{"role": "assistant", "content": "", "function_call": {"name": "look"}}],
            Fault("tool_calls", "message 1: calls a tool, which no stage here can do; leave such dialogues out"),
        ),
        (
            [{"role": "user", "content": [{"type": "text", "text": "Q?"}, {"type": "image_url", "image_url": {}}]}],
            Fault("content_not_text", "message 1: holds a part of type 'image_url'; only texts can be read"),
        ),
        *[
            (value, Fault("malformed", "messages must be a list of objects with role and content"))
            for value in (
                *(None, "text", [], {}, ["Q?"], [None], [{"content": "Q?"}], [{"role": 3, "content": "Q?"}]),
                *([{"role": "user"}], [{"role": "user", "content": 3}], [{"role": "user", "content": []}]),
                *([{"role": "user", "content": "half a pair \ud800"}], [{"role": "\ud800", "content": "Q?"}]),
            )
        ],
    ],
)
def test_what_cannot_be_read_says_why(value, fault):
    assert said(value) == fault


@pytest.mark.parametrize("column", ["messages", "prompt", "chosen", "response", "responses"])
def test_every_column_of_dialogues_says_why(column):
    fields = {"prompt": "Q?", "chosen": "A", "rejected": "B"} if column == "chosen" else {"prompt": "Q?"}
    dialogue = [{"role": "user", "content": "Q?"}, {"role": "agent", "content": "A"}]
    value = [dialogue, dialogue] if column == "responses" else dialogue
    (rejected,) = parse({**fields, column: value}, SourceParams(reader="file", name="mine", path="x"))
    assert rejected == Rejected(
        "unknown_role",
        "mine",
        "message 2: role 'agent'; set load.sources[...].role_map, such as {agent: user}",
    )


def test_one_message_may_stand_alone():
    record = {"prompt": "Q?", "chosen": {"role": "model", "content": "A"}, "rejected": {"from": "gpt", "value": "B"}}
    (row,) = parse(record, SourceParams(reader="file", name="mine", path="x"))
    assert [(r["content"], r["score"]) for r in row["responses"]] == [("A", 1.0), ("B", 0.0)]


def test_a_role_becomes_one_of_ours():
    with pytest.raises(ValueError, match=r"^role_map: bot must become one of system, user, assistant, not 'robot'$"):
        SourceParams(reader="file", path="x", role_map={"bot": "robot"})
    with pytest.raises(ValueError, match=r"^role_map: only for reader file, which hh is not$"):
        SourceParams(reader="hh", role_map={"bot": "user"})
