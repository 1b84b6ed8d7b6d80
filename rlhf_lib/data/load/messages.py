"""Prompts and answers out of texts and message lists; what several readers share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rlhf_lib.common.rows import Message, Row, ScoredResponse, is_blank, is_text, make_row
from rlhf_lib.data.load.reader import Rejected
from rlhf_lib.data.load.roles import Fault, read_messages

PROMPT_RULE = "a prompt must be a text, or messages that end on the user's turn"


def as_messages(value: Any) -> list[Message] | None:
    """The messages of a list of them, in any form that `read_messages` knows; None where it is no such list."""
    messages = read_messages(value)
    return None if isinstance(messages, Fault) else messages


def last_answer(value: Any) -> tuple[list[Message], str] | None:
    """The messages before the last assistant message, and its text; None where there is none (or no message list).

    What comes after that message is left out. The messages before it may be none, and may end on any role.
    """
    messages = as_messages(value) or []
    place = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)
    return None if place is None else (messages[:place], messages[place]["content"])


def answer(value: Any) -> tuple[list[Message], str] | None:
    """As `last_answer`; a text too is an answer, with no messages before it."""
    return ([], value) if is_text(value) else last_answer(value)


def user_prompt(value: Any) -> list[Message] | None:
    """A text as the user's message, or a message list that ends on the user's turn; None for anything else."""
    messages = [Message(role="user", content=value)] if is_text(value) else as_messages(value)
    return messages if messages and messages[-1]["role"] == "user" else None


def response_fault(text: str | None, score: float | None, scored: bool = True) -> str | None:
    """Why a response is not used, or None; `scored`: whether it must have a score."""
    if text is None:
        return "response_malformed"
    if is_blank(text):
        return "response_empty"
    return "response_no_score" if scored and score is None else None


def usable_row(
    source: str,
    prompt: list[Message],
    responses: Sequence[tuple[str | None, float | None]],
    scored: bool = True,
    given: Sequence[Any] = (),
) -> Iterator[Row | Rejected]:
    """The row of the responses (text, score) without a fault, and a rejection of each of the others.

    `given` has the scores as the file has them, to be shown where one could not be read.
    """
    if is_blank(prompt[-1]["content"]):
        yield Rejected("empty_prompt", source)
        return
    usable: list[ScoredResponse] = []
    for number, (text, score) in enumerate(responses):
        if fault := response_fault(text, score, scored):
            shown = fault == "response_no_score" and given and given[number] not in (None, "")
            yield Rejected(fault, source, f"{given[number]!r} is not a score: {text}" if shown else text or "")
        elif text is not None:
            usable.append({"content": text, "score": score})
    yield make_row(source, prompt, usable) if usable else Rejected("no_usable_response", source)


def pair_row(
    source: str,
    prompt: Any,
    answers: Sequence[Any],
    scores: Sequence[float | None],
    scored: bool = True,
    given: Sequence[Any] = (),
) -> Iterator[Row | Rejected]:
    """The row of answers to one prompt, each a text or a message list, and what was rejected of it.

    The messages before the last assistant message of the lists are the prompt; `prompt` is where they have none.
    """
    found = [pair for pair in map(answer, answers) if pair is not None]
    befores = [before for before, _ in found if before]
    messages = user_prompt(befores[0] if befores else prompt)
    if len(found) < len(answers):
        yield Rejected("malformed", source, "an answer must be a text, or messages with one of the assistant")
    elif any(before != befores[0] for before in befores):
        yield Rejected("prompts_differ", source)  # answers to different dialogues are not a comparison
    elif messages is None:
        yield Rejected("malformed", source, PROMPT_RULE)
    else:
        texts = [text for _, text in found]
        yield from usable_row(source, messages, list(zip(texts, scores, strict=True)), scored, given)


def chosen_row(
    source: str, prompt: Any, answers: Sequence[Any], scores: Sequence[float | None], given: Sequence[Any] = ()
) -> Iterator[Row | Rejected]:
    """As `pair_row`, of the chosen answer and the rejected one, which is never the best of its prompt.

    Where the chosen one is empty, or has no score, neither is used; nor where its score is the lower one.
    """
    better, worse = scores
    if better is not None and worse is not None and better < worse:
        yield Rejected("choice_contradicts_scores", source, f"chosen has {given[0]!r}, rejected {given[1]!r}")
        return
    first = answer(answers[0])
    alone = better is None or (first is not None and is_blank(first[1]))
    used = slice(1 if alone else None)
    yield from pair_row(source, prompt, answers[used], scores[used], given=given[used])
