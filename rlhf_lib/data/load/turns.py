"""Dialogues as lists of texts, without roles: the turns of each side in a column of its own, or of both in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_lib.data.load import fields as of_record

ANSWERS = ("chosen", "rejected", "response", "completion")
SIDES = ("user", "assistant")


def put_together(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with message lists where they have turns as texts; others as they are.

    Those of a prompt go before those of each answer, if all have as many, and the column of the prompt is left out.
    Such lists may be texts themselves, as in CSV: a prompt and all its answers that look so are no coincidence.
    """
    found = dict(fields)
    if isinstance(said := fields.get("messages"), list) and _are_texts(said):
        found["messages"] = _dialogue(said)
    asked = _turns(fields.get("prompt"))
    places: list[tuple[Any, Any]] = [(found, name) for name in ANSWERS if name in fields]
    if isinstance(fields.get("responses"), list):
        found["responses"] = answers = list(fields["responses"])
        places += [(answers, number) for number in range(len(answers))]
    turns = [_turns(holder[key]) for holder, key in places]
    if asked is None or not turns or any(each is None or len(each) != len(asked) for each in turns):
        return found
    for (holder, key), each in zip(places, turns, strict=True):
        holder[key] = _dialogue([text for turn in zip(asked, each or [], strict=True) for text in turn])
    del found["prompt"]
    return found


def _turns(value: Any) -> list[str | None] | None:
    """The texts of a list of them, or of the text of such a list; None for anything else."""
    value = of_record.as_list(value)
    return value if isinstance(value, list) and _are_texts(value) else None


def _are_texts(items: Sequence[Any]) -> bool:
    return any(isinstance(item, str) for item in items) and all(item is None or isinstance(item, str) for item in items)


def _dialogue(texts: Sequence[str | None]) -> list[dict[str, str]]:
    return [{"role": SIDES[place % 2], "content": text or ""} for place, text in enumerate(texts)]
