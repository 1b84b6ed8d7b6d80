"""The columns of a record that reward functions get, as values that JSON can hold."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from rlhf_lib.common.rows import is_text
from rlhf_lib.data.load.fields import ABSENT, at_path
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.load.roles import Fault


def read(raw: Any, source: SourceParams) -> dict[str, Any] | Fault:
    """The values by the names that the functions know; None for one that the record lacks.

    A text stays a text, so CSV's "7" is none of JSON's 7. Dates become texts (ISO 8601), and so do decimals, whose
    digits a float would lose; NaN is what pandas writes for a missing value: None.
    """
    values: dict[str, Any] = {}
    for name, column in source.columns_of_reward.items():
        found = at_path(raw, column) if isinstance(raw, Mapping) else ABSENT
        try:
            values[name] = None if found is ABSENT else _plain(found)
        except ValueError as error:
            return Fault("column_not_json", f"{column} holds {error}; leave it out of load.sources[...].reward_columns")
    return values


def _plain(value: Any) -> Any:
    """`value` as JSON holds it; a `ValueError` that says what it has that JSON has not."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if math.isinf(value):
            raise ValueError("an infinite number")
        return None if math.isnan(value) else value
    if isinstance(value, str):
        if not is_text(value):
            raise ValueError("half a surrogate pair")
        return value
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        if not all(map(is_text, value)):
            raise ValueError("an object with keys that are no texts")
        return {key: _plain(item) for key, item in value.items()}
    raise ValueError(f"a value of type {type(value).__name__}")
