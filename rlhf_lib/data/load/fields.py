"""The values of a record by our names for its columns."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from rlhf_lib.data.load.params import COLUMNS

LISTS = ("messages", "responses", "scores", "ranks")  # must be lists: in CSV, the text of one
DIALOGUES = ("prompt", "messages", "chosen", "rejected", "response", "completion")  # may be message lists
MESSAGE_KEYS = re.compile(r"""\s*\[\s*\{(?=.*['"](role|from)['"]\s*:)(?=.*['"](content|value)['"]\s*:)""", re.DOTALL)
ABSENT = object()

Column = str | list[str]
Columns = Mapping[str, Column | None]  # our name -> a column, or several, whose values are a list; None: leave it


def names_of(columns: Columns, present: Collection[str]) -> dict[str, Column]:
    """Our names that a record may have a value for, each with its column: by the map, or by the same name."""
    mapped = {root for column in columns.values() for root in _roots(column)}
    own = {name: name for name in COLUMNS if name in present and name not in mapped and name not in columns}
    return own | {name: column for name, column in columns.items() if column}


def values(raw: Mapping[Any, Any], columns: Columns) -> dict[str, Any]:
    """Our names, as far as the record has them, with their values; a null is an empty text."""
    found = {name: _value(raw, column) for name, column in names_of(columns, raw).items()}
    return {name: _read(name, value) for name, value in found.items() if value is not ABSENT}


def looks_like_messages(value: Any) -> bool:
    """Whether a value is the text of a list of messages."""
    return isinstance(value, str) and value.rstrip().endswith("]") and bool(MESSAGE_KEYS.match(value))


def at_path(raw: Mapping[Any, Any], column: str) -> Any:
    """What a record has in a column, or at the path of that name; `ABSENT` where it has neither."""
    return raw[column] if column in raw else _at(raw, column.split("."))


def roots(column: Column | None, present: Collection[str]) -> list[str]:
    """The columns of a record of which a mapped column is made."""
    return [root for root in _roots(column) if root in present]


def _roots(column: Column | None) -> list[str]:
    """Each column, and what comes before its first dot, where it may be a path."""
    given = [column] if isinstance(column, str) else column or []
    return [root for one in given if one for root in dict.fromkeys((one, one.partition(".")[0]))]


def _value(raw: Mapping[Any, Any], column: Column) -> Any:
    if isinstance(column, str):
        value = at_path(raw, column)
        return "" if value is None else value
    items = [_value(raw, one) for one in column]
    return ABSENT if any(item is ABSENT for item in items) else items


def _at(value: Any, keys: Sequence[str]) -> Any:
    """What lies at a path of keys; of a list, what lies there in each of its objects."""
    if not keys:
        return value
    if isinstance(value, list) and value:
        items = [_at(item, keys) for item in value]
        return ABSENT if all(item is ABSENT for item in items) else [None if item is ABSENT else item for item in items]
    return _at(value[keys[0]], keys[1:]) if isinstance(value, dict) and keys[0] in value else ABSENT


def _read(name: str, value: Any) -> Any:
    """The value of one of our names, with lists in the place of their texts where it may be a list."""
    return as_list(value) if name in LISTS or (name in DIALOGUES and looks_like_messages(value)) else value


def as_list(value: Any) -> Any:
    """A list out of its text, as JSON or as Python prints it (so does pandas in CSV); other values as they are."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    for read in (json.loads, _literal):
        try:
            return read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return value


def _literal(text: str) -> Any:
    """What Python's text of a list holds; a `ValueError` for NumPy's, whose ['A' 'B'] would be one text to Python."""
    value = ast.literal_eval(text)
    kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type != tokenize.NL]
    if any(one == other == tokenize.STRING for one, other in pairwise(kinds)):
        raise ValueError("texts without a comma between them")
    return value
