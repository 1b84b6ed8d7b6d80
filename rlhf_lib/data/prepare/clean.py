"""One row at a time: tidy text, language, patterns, length. Dropped texts are reported with the reason."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from rlhf_lib.common.rows import EXCERPT, Message, Row, ScoredResponse, clean_text, is_blank, normalise, parse_row
from rlhf_lib.data.prepare.language import foreign_language, foreign_response
from rlhf_lib.data.prepare.length import Tokens, load_tokens
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.data.prepare.split import digest, minhash


class Dropped(NamedTuple):
    """A prompt (with all of its responses), or one response, that is not used, and why."""

    reason: str
    text: str
    language: str = ""  # which, where that is the reason


@dataclass
class Cleaned:
    """What became of a row; `row` is None where nothing of it is left."""

    id: str
    source: str
    row: Row | None = None
    dropped: Dropped | None = None
    dropped_responses: list[Dropped] = field(default_factory=list)
    truncated: list[str] = field(default_factory=list)  # "prompt" or "response", for each text that was cut
    test: bool = False  # whether upstream has it in a test split
    answers: bool = False  # whether it has any
    unscored: bool = False  # whether it has one without a score
    scores: tuple[float, float] | None = None  # the least and the greatest
    answer: bytes = b""  # equal for equal answers, of a row that came with one alone
    key: bytes = b""  # equal for prompts that count as the same
    columns: bytes = b""  # equal for rows of which reward functions get the same; empty where that is nothing
    asked: bytes = b""  # equal for prompts of the same letters; empty where the source has no columns for functions
    signature: Any = None  # for near-duplicates


def clean_lines(params: PrepareParams, lines: Sequence[tuple[str, bytes]]) -> list[tuple[bytes, Cleaned]]:
    """What becomes of rows, given as (place, line of JSON): each with its new line of JSON (none: empty).

    The row itself is left out: between processes a line is cheaper.
    """
    done = []
    for place, line in lines:
        cleaned = clean(parse_row(line, place), params)
        text = "" if cleaned.row is None else json.dumps(cleaned.row, ensure_ascii=False) + "\n"
        done.append((text.encode(), replace(cleaned, row=None)))
    return done


def clean(row: Row, params: PrepareParams) -> Cleaned:
    """`row` with tidy text, without its empty, unwanted, foreign, too long and repeated responses."""
    cleaned = Cleaned(row["id"], row["source"])
    prompt = _clean_prompt(row, params, cleaned)
    if cleaned.dropped is None:
        responses = _clean_responses(row, params, cleaned)
        if row["responses"] and not responses:
            cleaned.dropped = Dropped("no_response", _excerpt(prompt))
        else:
            cleaned.row = {**row, "prompt": prompt, "responses": responses}
            cleaned.test = row["split"] == "test"
            cleaned.answers = bool(responses)
            cleaned.unscored = any(response["score"] is None for response in responses)
            scores = [response["score"] for response in responses if response["score"] is not None]
            cleaned.scores = (min(scores), max(scores)) if scores else None
            if len(row["responses"]) == 1:
                cleaned.answer = digest(responses[0]["content"], params.seed)
            normalised = normalise(prompt)
            cleaned.key = digest(normalised, params.seed)
            if "columns" in row:
                cleaned.asked = digest(json.dumps(prompt), params.seed)
            if has_columns(row):
                cleaned.columns = digest(json.dumps(row["columns"], sort_keys=True), params.seed)
            if params.minhash_threshold is not None:
                cleaned.signature = minhash(normalised)
    return cleaned


def has_columns(row: Row) -> bool:
    """Whether the row has anything for reward functions."""
    return any(value is not None for value in row.get("columns", {}).values())


def question(prompt: Sequence[Message]) -> str:
    """The last message of the user; empty where there is none."""
    return next((message["content"] for message in reversed(prompt) if message["role"] == "user"), "")


def _clean_prompt(row: Row, params: PrepareParams, cleaned: Cleaned) -> list[Message]:
    prompt: list[Message] = [{"role": m["role"], "content": clean_text(m["content"])} for m in row["prompt"]]
    asked, limit = question(prompt), params.max_prompt_tokens
    if is_blank(asked):
        cleaned.dropped = Dropped("empty_prompt", _excerpt(prompt))
    elif any(re.search(pattern, message["content"]) for pattern in params.drop_patterns for message in prompt):
        cleaned.dropped = Dropped("prompt_pattern", _excerpt(prompt))
    elif language := foreign_language(asked, params.languages, params.language_confidence):
        cleaned.dropped = Dropped("foreign_prompt", _excerpt(prompt), language)
    elif limit is not None and _tokens(params).count(prompt) > limit:
        if params.too_long == "truncate":
            cleaned.truncated.append("prompt")
            return _tokens(params).fit(prompt, limit)
        cleaned.dropped = Dropped("prompt_too_long", _excerpt(prompt))
    return prompt


def _clean_responses(row: Row, params: PrepareParams, cleaned: Cleaned) -> list[ScoredResponse]:
    kept: list[ScoredResponse] = []
    for response in row["responses"]:
        text = clean_text(response["content"])
        if params.too_long == "truncate" and params.max_response_tokens is not None:
            whole, text = text, _tokens(params).head(text, params.max_response_tokens)
            if text != whole:
                cleaned.truncated.append("response")
        if dropped := _response_fault(text, params):
            cleaned.dropped_responses.append(dropped)
        elif any(text == earlier["content"] for earlier in kept):
            cleaned.dropped_responses.append(Dropped("duplicate_response", text[:EXCERPT]))
        else:
            kept.append({"content": text, "score": response["score"]})
    return kept


def _response_fault(text: str, params: PrepareParams) -> Dropped | None:
    excerpt, limit = text[:EXCERPT], params.max_response_tokens
    if is_blank(text):
        return Dropped("empty_response", excerpt)
    if len(text) < (params.min_response_chars or 0):
        return Dropped("response_too_short", excerpt)
    if any(re.search(pattern, text) for pattern in params.drop_patterns):
        return Dropped("response_pattern", excerpt)
    if language := foreign_response(text, params.languages, params.language_confidence):
        return Dropped("foreign_response", excerpt, language)
    if limit is not None and params.too_long == "drop" and _tokens(params).count_text(text) > limit:
        return Dropped("response_too_long", excerpt)
    return None


def _tokens(params: PrepareParams) -> Tokens:
    if params.tokenizer_name_or_path is None:
        raise ValueError("tokenizer_name_or_path: needed for a length in tokens")
    return load_tokens(params.tokenizer_name_or_path, params.tokenizer_revision)


def _excerpt(prompt: Sequence[Message]) -> str:
    return question(prompt)[:EXCERPT]
