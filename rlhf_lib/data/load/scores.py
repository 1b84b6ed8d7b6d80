"""Scores as people write them: numbers, labels, percentages, fractions, decimal commas; and which answer is better."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rlhf_lib.common.rows import as_score
from rlhf_lib.data.load.roles import Fault

LABELS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
# A thumb in the exports of chat tools, without case, space, hyphens and the colour of the skin.
UP = {"up", "thumbsup", "thumbup", "upvote", "👍", "like", "liked", "good", "positive", "desirable", "y", "t", "ok"}
DOWN = {"down", "thumbsdown", "thumbdown", "downvote", "👎", "dislike", "disliked", "bad", "negative", "undesirable"}
DOWN |= {"n", "f"}
SKIN = re.compile(r"[\s_:-]|[\U0001f3fb-\U0001f3ff\ufe0f]")
LABEL_RULE = "a thumb is true or false, 1 or 0, yes or no, up or down, good or bad"
NO_LABEL = "columns: {label: null} leaves the column alone"
GRADES_RULE = f"if these are grades, set load.sources[...].columns to {{score: the column}}; {NO_LABEL}"
CHOICES_RULE = "set load.sources[...].choices to the values in the order of the responses"


def read_score(value: Any) -> float | None:
    """A number, or a text that is one; labels are 1 and 0; 80% and 4/5 are 0.8; None for anything else.

    A comma is a decimal comma, but 1,234 is not read: it may be more than a thousand.
    """
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, Decimal):  # databases write 4.5 so into Parquet
        value = str(value)
    if not isinstance(value, str):
        return as_score(value)
    text = value.strip().lower()
    if text in LABELS:
        return LABELS[text]
    if text.endswith("%"):
        number = _number(text[:-1])
        return None if number is None else number / 100
    above, slash, below = text.partition("/")
    if slash:
        numerator, denominator = _number(above), _number(below)
        return None if numerator is None or not denominator else numerator / denominator
    return _number(text)


def read_label(value: Any) -> float | None:
    """1 for a thumb up (true, 1, yes, `UP`), 0 for a thumb down (false, 0, -1, no, `DOWN`); None for anything else."""
    if isinstance(value, str) and (word := SKIN.sub("", value.lower())) in UP | DOWN:
        return float(word in UP)
    score = read_score(value)
    return max(score, 0.0) if score in (1, 0, -1) else None


def label_fault(value: Any) -> Fault | None:
    """Why a label is no thumb; None where it is one, or there is none.

    A number beyond 1, 0 and -1 tells that the column has grades, of which 1 would be a thumb up.
    """
    if value in (None, "") or read_label(value) is not None:
        return None
    if read_score(value) is None:
        return Fault("unknown_label", f"label {value!r}: {LABEL_RULE}; {NO_LABEL}")
    return Fault("label_is_a_grade", f"label {value!r}: {LABEL_RULE}; {GRADES_RULE}")


def read_rank(value: Any) -> float | None:
    """A score for a rank, of which 1 is the best: the rank with a minus before it."""
    rank = None if isinstance(value, bool) else read_score(value)
    return None if rank is None else -rank


def chosen(value: Any, names: Sequence[str], choices: Sequence[Any]) -> int | Fault:
    """The place, from 0, of the response that `value` names.

    `choices` has the values in the order of the responses; without it, they are places from 0, or the columns' `names`.
    """
    text = _spelled(value)
    known = [_spelled(choice) for choice in choices] if choices else [str(place) for place in range(len(names))]
    if text in known[: len(names)]:
        return known.index(text)
    spelled = [_spelled(name) for name in names]
    if not choices and text in spelled:
        return spelled.index(text)
    if not choices and text == str(len(names)):  # and so the 1 of other rows is the first response, not the second
        count = ", ".join(str(place + 1) for place in range(len(names)))
        return Fault("choice_beyond_last", f"choice {value!r} of {len(names)} responses; {CHOICES_RULE} ([{count}])")
    return Fault("no_choice", f"choice {value!r} is no response; if it should be, {CHOICES_RULE}")


def preferred(strength: Any) -> int | Fault:
    """The place of the better of two responses: 0 where the strength is below 0, 1 where it is above."""
    number = read_score(strength)
    if not number:
        return Fault("no_choice", f"preference_strength {strength!r} prefers none of the two")
    return int(number > 0)


def _spelled(value: Any) -> str:
    """A value as text, whatever its type and case: 1, 1.0 and "1" are one."""
    if isinstance(value, float | Decimal) and value % 1 == 0:
        value = int(value)
    return str(value).strip().lower()


def _number(text: str) -> float | None:
    text = text.strip()
    if re.fullmatch(r"[+-]?\d+,\d+", text) and not re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text):
        text = text.replace(",", ".")
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
