"""Reader `file`: any table of prompts, answers and scores as rows, by the names of its columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from rlhf_lib.common.rows import EXCERPT, Message, Row, is_blank, is_text, make_row
from rlhf_lib.data.load import fields as of_record
from rlhf_lib.data.load.messages import PROMPT_RULE, chosen_row, last_answer, pair_row, usable_row, user_prompt
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.load.reader import Rejected
from rlhf_lib.data.load.roles import Fault, read_messages
from rlhf_lib.data.load.scores import chosen, label_fault, preferred, read_label, read_rank, read_score
from rlhf_lib.data.load.split_names import is_held_out
from rlhf_lib.data.load.turns import put_together

SET_COLUMNS = "set load.sources[...].columns"
COMMAS = "if NumPy wrote it (without commas), export it again as JSON Lines"
TEXT_KEYS = ("content", "text", "response", "answer")  # of an answer that is an object
ALWAYS = ("prompt", "input", "system", "split")  # go with every way to hold answers
OPTIONAL = ("input", "system", "split")  # a record may lack them, even where the map names them
LIST_SCORES = ("scores", "ranks", "choice", "preference_strength")
READ: dict[str, Callable[[Any], float | None]] = {"score": read_score, "rank": read_rank, "label": read_label}

Fields = Mapping[str, Any]


def parse(raw: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    """The row of one record, by its columns; scores are None where it has no column of them.

    Of several columns with answers, one in `source.columns` goes first, then the order of `SHAPES`; so do the columns
    of scores. A null counts as an empty text. `input` follows its prompt after a blank line. `system` goes before a
    prompt that does not begin with a system message.
    """
    if not isinstance(raw, dict):
        yield Rejected("malformed", source.name, "a record must be an object with columns")
        return
    fields = of_record.values(raw, source.columns)
    shape = _shape(fields, source.columns)
    fault = _fault(raw, source, fields, shape)
    if fault is None:
        fields = put_together(fields)
        fault = _read_dialogues(fields, source.role_map)
    if fault:
        yield Rejected(fault.reason, source.name, fault.text)
        return
    held_out = bool(is_held_out(fields.get("split", "")))
    for item in SHAPES[shape].parse(source, _with_input(fields)):
        yield item if isinstance(item, Rejected) else _finished(item, fields.get("system", ""), held_out)


def used(columns: Collection[str], source: SourceParams) -> set[str]:
    """Those of a record's columns that `parse` reads."""
    names = of_record.names_of(source.columns, columns)
    there = {name: roots for name, column in names.items() if (roots := of_record.roots(column, columns))}
    form = SHAPES[_shape(there, source.columns)]
    scores = sorted((name for name in form.scores if name in there), key=_order(source.columns))
    # a pair's scores are read both or not at all, of others the first
    scores = (scores if len(scores) == 2 else []) if form is PAIR else scores[:1]
    read = {*ALWAYS, *form.answers, *scores}
    return {root for name, roots in there.items() if name in read for root in roots}


def roots(column: of_record.Column | None, present: Collection[str]) -> list[str]:
    """The columns of a record of which a mapped column is made."""
    return of_record.roots(column, present)


def _shape(fields: Mapping[str, Any], columns: Collection[str]) -> str:
    """The name of the column with the answers; "prompt" where there is none.

    Tables that were put together have the columns of all, with nulls: one that is empty is last.
    """
    with_answers = [name for name in SHAPES if name in fields and name != "prompt"]
    return min(with_answers, key=lambda name: (name not in columns, fields[name] in ("", [])), default="prompt")


def _first(names: Sequence[str], columns: Collection[str]) -> str:
    """Of our names for columns, the first that the params map, or else the first."""
    return min(names, key=_order(columns))


def _order(columns: Collection[str]) -> Callable[[str], bool]:
    return lambda name: name not in columns


def _fault(raw: Mapping[Any, Any], source: SourceParams, fields: Fields, shape: str) -> Fault | None:
    """Why the record has not the columns that are needed, or None."""
    if not fields and not source.columns:
        return Fault("no_known_column", f"has the columns {_listed(raw)}; {SET_COLUMNS}")
    mapped = [(name, column) for name, column in source.columns.items() if column and name not in fields]
    absent = [str(column) for name, column in mapped if name not in OPTIONAL]
    absent = absent or [name for name in _needs(shape, fields) if name not in fields]
    if absent:
        hint = ", or reader: hh for transcripts of Human and Assistant" if _is_transcript(fields.get("chosen")) else ""
        return Fault("missing_column", f"has no {absent[0]}, but {_listed(raw)}; {SET_COLUMNS}{hint}")
    for name in OPTIONAL:
        if not is_text(fields.get(name, "")):
            return Fault("malformed", f"{name} must be a text")
    split = fields.get("split", "")
    if not is_blank(split) and is_held_out(split) is None:
        return Fault(
            "unknown_split", f"split {split!r}; call it train, validation or test, or set columns: {{split: null}}"
        )
    return None


def _needs(shape: str, fields: Fields) -> tuple[str, ...]:
    """The columns without which there is no row: the prompt too, unless the answers are dialogues that have it."""
    names = SHAPES[shape].answers
    answers = fields.get("responses") if shape == "responses" else [fields.get(name) for name in names]
    return names if shape == "messages" or _dialogues(answers) else (*names, "prompt")


def _is_transcript(text: Any) -> bool:
    return isinstance(text, str) and "Human:" in text and "Assistant:" in text


def _listed(raw: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, raw))[: EXCERPT // 2].encode(errors="replace").decode()


def _read_dialogues(fields: dict[str, Any], role_map: Mapping[str, str]) -> Fault | None:
    """Put message lists of our own form in the place of those that the record has; or why one cannot be read."""
    answers = fields.get("responses")
    places: list[tuple[Any, Any]] = [(fields, name) for name in of_record.DIALOGUES if name in fields]
    if isinstance(answers, list):
        fields["responses"] = answers = list(answers)
        places += [(answers, number) for number, item in enumerate(answers) if isinstance(item, list)]
    for holder, key in places:
        value = holder[key]
        if isinstance(value, dict) and {"role", "from"} & value.keys():  # one message
            value = [value]
        if isinstance(value, list):
            messages = read_messages(value, role_map)
            if isinstance(messages, Fault):
                return messages
            holder[key] = messages
        elif of_record.looks_like_messages(value):
            return Fault("malformed", f"{key} is the text of a list of messages, but not as JSON or Python; {COMMAS}")
    return None


def _with_input(fields: Fields) -> Fields:
    """The fields with Alpaca's `input` in the prompt, after the instruction."""
    prompt, more = fields.get("prompt"), fields.get("input", "")
    if is_blank(more):
        return fields
    if isinstance(prompt, list):
        last = prompt[-1]
        return {**fields, "prompt": [*prompt[:-1], {**last, "content": f"{last['content']}\n\n{more}"}]}
    return {**fields, "prompt": f"{prompt}\n\n{more}".strip()} if is_text(prompt) else fields


def _pair(source: SourceParams, fields: Fields) -> Iterator[Row | Rejected]:
    """Two answers with their scores, or with 1 for the chosen one and 0 for the other."""
    answers, given = [fields["chosen"], fields["rejected"]], []
    scores: list[float | None] = [1.0, 0.0]
    if "score_chosen" in fields and "score_rejected" in fields:
        given = [fields["score_chosen"], fields["score_rejected"]]
        scores = [read_score(value) for value in given]
    yield from chosen_row(source.name, fields.get("prompt"), answers, scores, given)


def _one(source: SourceParams, fields: Fields, name: str) -> Iterator[Row | Rejected]:
    """One answer, with its score where there is a column of scores."""
    scored = [column for column in READ if column in fields]
    column = _first(scored, source.columns) if scored else ""
    given = [fields[column]] if scored else []
    if column == "label" and (fault := label_fault(given[0])):
        yield Rejected(fault.reason, source.name, fault.text)
        return
    scores = [READ[column](given[0])] if scored else [None]
    yield from pair_row(source.name, fields.get("prompt"), [fields[name]], scores, bool(scored), given)


def _messages(source: SourceParams, fields: Fields) -> Iterator[Row | Rejected]:
    """A dialogue: its last answer is the response; without an answer it is a prompt."""
    messages = fields["messages"]
    if messages in ([], "") and "prompt" in fields:
        yield from _prompt(source, fields)
    elif not isinstance(messages, list):
        yield Rejected("malformed", source.name, "messages must be a list of objects with role and content")
    elif last_answer(messages):
        yield from _one(source, fields, "messages")
    else:
        yield from _prompt(source, {"prompt": messages})


def _many(source: SourceParams, fields: Fields) -> Iterator[Row | Rejected]:
    """A list of answers, each a text, an object or a dialogue; their scores are a list too, or in the objects."""
    responses = fields["responses"]
    if responses in ([], ""):
        yield from _prompt(source, fields)
        return
    if not isinstance(responses, list):
        yield Rejected("malformed", source.name, f"responses must be a list; {COMMAS}")
        return
    found = _scores(source, fields, responses)
    if isinstance(found, Fault):
        yield Rejected(found.reason, source.name, found.text)
        return
    scores, given = found
    scored = any(name in fields for name in LIST_SCORES) or any(score is not None for score in given)
    prompt = user_prompt(fields.get("prompt"))
    if _dialogues(responses):
        yield from pair_row(source.name, fields.get("prompt"), responses, scores, scored, given)
    elif prompt is None:
        yield Rejected("malformed", source.name, PROMPT_RULE)
    else:
        texts = [_text(response) for response in responses]
        yield from usable_row(source.name, prompt, list(zip(texts, scores, strict=True)), scored, given)


def _dialogues(responses: Any) -> bool:
    """Whether the answers are message lists, which may have the prompt in them."""
    return isinstance(responses, list) and any(isinstance(response, list) for response in responses)


def _scores(
    source: SourceParams, fields: Fields, responses: Sequence[Any]
) -> tuple[list[float | None], Sequence[Any]] | Fault:
    """The scores of a list of answers, and what the file has for each."""
    columns = [name for name in LIST_SCORES if name in fields]
    column = _first(columns, source.columns) if columns else ""
    given = fields.get(column, [item.get("score") if isinstance(item, dict) else None for item in responses])
    if column in ("choice", "preference_strength"):
        if column == "preference_strength" and len(responses) != 2:
            return Fault("malformed", f"preference_strength compares two responses, not {len(responses)}")
        names = source.columns.get("responses", "")
        named = names if isinstance(names, list) else [""] * len(responses)
        best = preferred(given) if column == "preference_strength" else chosen(given, named, source.choices)
        if isinstance(best, Fault):
            return best
        labels: list[float | None] = [float(place == best) for place in range(len(responses))]
        return labels, ()
    if not isinstance(given, list) or len(given) != len(responses):
        return Fault("scores_differ_in_number", f"{column} must be a list with one for each of the responses")
    return [(read_rank if column == "ranks" else read_score)(value) for value in given], given


def _prompt(source: SourceParams, fields: Fields) -> Iterator[Row | Rejected]:
    """A prompt alone."""
    prompt = user_prompt(fields["prompt"])
    if prompt is None:
        yield Rejected("malformed", source.name, PROMPT_RULE)
    elif is_blank(prompt[-1]["content"]):
        yield Rejected("empty_prompt", source.name)
    else:
        yield make_row(source.name, prompt, [])


def _text(response: Any) -> str | None:
    if isinstance(response, dict):
        response = next((response[key] for key in TEXT_KEYS if key in response), None)
    return response if is_text(response) else None


def _finished(row: Row, system: str, held_out: bool) -> Row:
    """The row with its system message and its split."""
    if not is_blank(system) and row["prompt"][0]["role"] != "system":
        row = make_row(row["source"], [Message(role="system", content=system), *row["prompt"]], row["responses"])
    row["split"] = "test" if held_out else "train"
    return row


class ColumnForm(NamedTuple):
    """A way to hold answers."""

    parse: Callable[[SourceParams, Fields], Iterator[Row | Rejected]]
    answers: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()  # of which the first that there is counts; of a pair both


PAIR = ColumnForm(_pair, ("chosen", "rejected"), ("score_chosen", "score_rejected"))
SHAPES = {
    "chosen": PAIR,
    "rejected": PAIR,
    "responses": ColumnForm(_many, ("responses",), LIST_SCORES),
    "response": ColumnForm(partial(_one, name="response"), ("response",), tuple(READ)),
    "completion": ColumnForm(partial(_one, name="completion"), ("completion",), tuple(READ)),
    "messages": ColumnForm(_messages, ("messages",), tuple(READ)),
    "prompt": ColumnForm(_prompt),
}
