"""Reader `file`: any table of prompts, answers and scores as rows, by the names of its columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from rlhf_lib.common.rows import EXCERPT, Message, Row, as_score, is_blank, is_text, make_row
from rlhf_lib.data.load.messages import PROMPT_RULE, answer, as_messages, last_answer, pair_row, usable_row, user_prompt
from rlhf_lib.data.load.params import COLUMNS, SourceParams
from rlhf_lib.data.load.reader import Rejected

SET_COLUMNS = "set load.sources[...].columns"
TEXT_KEYS = ("content", "text", "response", "answer")  # of an answer that is an object


def parse(raw: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    """The row of one record, by its columns; scores are None where it has no column of them.

    Of several columns with answers, one in `source.columns` goes first, then the order of `SHAPES`. A null counts as
    an empty text. `system` goes before a prompt that does not begin with a system message.
    """
    if not isinstance(raw, dict):
        yield Rejected("malformed", source.name, "a record must be an object with columns")
        return
    fields = _fields(raw, source.columns)
    shape = _shape(fields, source.columns)
    if fault := _fault(raw, source, fields, shape):
        yield fault
        return
    for item in SHAPES[shape].parse(source.name, fields):
        yield item if isinstance(item, Rejected) else _with_system(item, fields.get("system", ""))


def _fields(raw: Mapping[Any, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Our names, as far as the record has them, with their values."""
    # a column that is mapped is not found under its own name too
    found = {name: name for name in COLUMNS if name not in columns.values()} | dict(columns)
    return {name: "" if raw[column] is None else raw[column] for name, column in found.items() if column in raw}


def _shape(fields: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """The name of the column with the answers; "prompt" where there is none."""
    with_answers = [name for name in SHAPES if name in fields and name != "prompt"]
    return min(with_answers, key=lambda name: name not in columns, default="prompt")


def _fault(raw: Mapping[Any, Any], source: SourceParams, fields: Mapping[str, Any], shape: str) -> Rejected | None:
    """Why the record has not the columns that are needed, or None."""
    if not fields and not source.columns:
        return Rejected("no_known_column", source.name, f"has the columns {_listed(raw)}; {SET_COLUMNS}")
    absent = [column for column in source.columns.values() if column not in raw]
    absent = absent or [name for name in SHAPES[shape].needs if name not in fields]
    if absent:
        return Rejected("missing_column", source.name, f"has no {absent[0]}, but {_listed(raw)}; {SET_COLUMNS}")
    if not is_text(fields.get("system", "")):
        return Rejected("malformed", source.name, "system must be a text")
    return None


def _listed(raw: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, raw))[: EXCERPT // 2].encode(errors="replace").decode()


def _pair(source: str, fields: Mapping[str, Any]) -> Iterator[Row | Rejected]:
    """Two answers with their scores, or with 1 for the chosen one and 0 for the other."""
    answers = [fields["chosen"], fields["rejected"]]
    scores: list[float | None] = [1.0, 0.0]
    if "score_chosen" in fields and "score_rejected" in fields:
        scores = [_score(fields["score_chosen"]), _score(fields["score_rejected"])]
    elif (chosen := answer(answers[0])) and is_blank(chosen[1]):
        answers, scores = answers[:1], scores[:1]  # without it the rejected one would be the best of its prompt
    return pair_row(source, fields.get("prompt"), answers, scores)


def _one(source: str, fields: Mapping[str, Any], name: str) -> Iterator[Row | Rejected]:
    """One answer, with its score where there is a column of scores."""
    scored = "score" in fields
    score = _score(fields["score"]) if scored else None
    return pair_row(source, fields.get("prompt"), [fields[name]], [score], scored)


def _messages(source: str, fields: Mapping[str, Any]) -> Iterator[Row | Rejected]:
    """A dialogue: its last answer is the response; without an answer it is a prompt."""
    messages = as_messages(fields["messages"])
    if messages is None:
        yield Rejected("malformed", source, "messages must be a list of objects with role and content")
    elif last_answer(messages):
        yield from _one(source, fields, "messages")
    else:
        yield from _prompt(source, {"prompt": messages})


def _many(source: str, fields: Mapping[str, Any]) -> Iterator[Row | Rejected]:
    """A list of answers, each a text or an object; their scores are a list too, or in the objects."""
    prompt, responses = user_prompt(fields["prompt"]), fields["responses"]
    if responses in ([], ""):
        yield from _prompt(source, fields)
        return
    if prompt is None or not isinstance(responses, list):
        yield Rejected("malformed", source, f"{PROMPT_RULE}; responses must be a list")
        return
    scores = fields.get("scores", [item.get("score") if isinstance(item, dict) else None for item in responses])
    if not isinstance(scores, list) or len(scores) != len(responses):
        yield Rejected("scores_differ_in_number", source, "scores must be a list with one for each of the responses")
        return
    scored = "scores" in fields or any(score is not None for score in scores)
    yield from usable_row(source, prompt, list(zip(map(_text, responses), map(_score, scores), strict=True)), scored)


def _prompt(source: str, fields: Mapping[str, Any]) -> Iterator[Row | Rejected]:
    """A prompt alone."""
    prompt = user_prompt(fields["prompt"])
    if prompt is None:
        yield Rejected("malformed", source, PROMPT_RULE)
    elif is_blank(prompt[-1]["content"]):
        yield Rejected("empty_prompt", source)
    else:
        yield make_row(source, prompt, [])


def _text(response: Any) -> str | None:
    if isinstance(response, dict):
        response = next((response[key] for key in TEXT_KEYS if key in response), None)
    return response if is_text(response) else None


def _score(value: Any) -> float | None:
    """A number, or a text that is one: a CSV file has no other."""
    if isinstance(value, str):
        try:
            return as_score(float(value))
        except ValueError:
            return None
    return as_score(value)


def _with_system(row: Row, system: str) -> Row:
    if is_blank(system) or row["prompt"][0]["role"] == "system":
        return row
    return make_row(row["source"], [Message(role="system", content=system), *row["prompt"]], row["responses"])


class ColumnForm(NamedTuple):
    """A way to hold answers."""

    parse: Callable[[str, Mapping[str, Any]], Iterator[Row | Rejected]]
    needs: tuple[str, ...] = ("prompt",)


SHAPES = {
    "chosen": ColumnForm(_pair, ("chosen", "rejected")),
    "rejected": ColumnForm(_pair, ("chosen", "rejected")),
    "responses": ColumnForm(_many),
    "response": ColumnForm(partial(_one, name="response")),
    "completion": ColumnForm(partial(_one, name="completion")),
    "messages": ColumnForm(_messages, ()),
    "prompt": ColumnForm(_prompt),
}
