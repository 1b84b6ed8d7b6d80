"""Every reader takes any JSON value: it is rows or rejections."""

import copy
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upstream import (
    RECORDS,
    parsed,
)

from rlhf_lib.common.rows import is_blank, is_messages, is_text
from rlhf_lib.data.load.reader import Rejected
from rlhf_lib.data.load.readers import READERS

# Every reader
PIECES = ["\n\nHuman:", "\n\nAssistant:", " ", "a", "\n", "<p>", "</p>", "<pre>", "</pre>", "<code>", "</code>", "`"]
PIECES += [
    "<li>",
    "<ol>",
    "</ol>",
    "<br>",
    "<blockquote>",
    "<![odd[",
    "&lt;",
    "&#xd800;",
    "\u200b",
    "\ud800",
    "http://[",
]
TEXT = st.text(st.characters(), max_size=8) | st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
SCORES = st.sampled_from(["overall", "fine_grained", "honesty"])


def places(value, at=()):
    """The path of every part of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, part in inner for place in places(part, (*at, key)))]


def replaced(record, place, value):
    if not place:
        return value
    changed = copy.deepcopy(record)
    part = changed
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    return changed


def check(reader, record, score):
    for item in parsed(reader, record, score=score if reader == "ultrafeedback" else "overall"):
        if isinstance(item, Rejected):
            assert re.fullmatch("[a-z_]+", item.reason)
            assert is_text(item.text)
            continue
        assert is_messages(item["prompt"])
        assert item["prompt"][-1]["role"] == "user"
        assert not is_blank(item["prompt"][-1]["content"])
        assert all(is_text(r["content"]) and not is_blank(r["content"]) for r in item["responses"])
        assert all(r["score"] is None or math.isfinite(r["score"]) for r in item["responses"])
        assert is_text(json.dumps(item, ensure_ascii=False, allow_nan=False))


@pytest.mark.parametrize("reader", READERS)
@settings(deadline=None, max_examples=50)
@given(record=JSON, score=SCORES)
def test_any_json_value_is_rows_or_rejections(reader, record, score):
    check(reader, record, score)


@pytest.mark.parametrize(("reader", "record"), RECORDS)
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_record_with_any_part_replaced_is_rows_or_rejections(reader, record, data):
    place = data.draw(st.sampled_from(places(record)))
    check(reader, replaced(record, place, data.draw(JSON)), data.draw(SCORES))


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("record", [None, 3, [], {}, "text", json.loads("[" * 900 + "]" * 900)])
def test_what_is_no_record_is_rejected_and_shown(reader, record):
    (item,) = parsed(reader, record)
    assert isinstance(item, Rejected)
    assert item.text.strip()
