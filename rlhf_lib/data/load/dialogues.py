r"""Dialogues: UltraChat's message lists, and the texts "\n\nHuman: ...\n\nAssistant: ..." of HH and its descendants."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from rlhf_lib.common.rows import Message, Row, is_blank, is_text, make_row
from rlhf_lib.data.load.messages import pair_row, usable_row
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.load.reader import Rejected

# Without a blank line before it (or the start of the text) "Assistant:" is a part of what somebody says.
TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}

Dialogue = tuple[list[Message], str]  # the prompt, and the answer to it


def parse_ultrachat(raw: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    """One record {messages} of HuggingFaceH4/ultrachat_200k: what comes after the last answer is left out."""
    yield from pair_row(source.name, None, [_field(raw, "messages")], [None], scored=False)


def parse_hh(raw: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    """One record {chosen, rejected} of Anthropic/hh-rlhf, two dialogues that differ in the last answer alone."""
    yield from _pair(source.name, dialogue(_field(raw, "chosen")), dialogue(_field(raw, "rejected")))


def parse_hh_prompts(raw: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    """One record {user} of wentingzhao/anthropic-hh-first-prompt: a prompt without responses."""
    text = _field(raw, "user")
    if not is_text(text):
        yield Rejected("malformed", source.name)
    elif is_blank(text):
        yield Rejected("empty_prompt", source.name)
    else:
        yield make_row(source.name, [Message(role="user", content=text)], [])


def parse_rm_static(raw: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    r"""One record {prompt, chosen, rejected} of Dahoas/rm-static: those of HH, cut after the last "Assistant:"."""
    chosen, rejected = (_completed(raw, side) for side in ("chosen", "rejected"))
    yield from _pair(source.name, chosen, rejected)


def parse_sft_static(raw: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    r"""One record {prompt, response} of Dahoas/sft-static, cut after the last "Assistant:" too."""
    found = _completed(raw, "response")
    if found is None:
        yield Rejected("malformed", source.name)
    else:
        yield from usable_row(source.name, found[0], [(found[1], None)], scored=False)


def dialogue(text: Any) -> Dialogue | None:
    r"""The prompt and the answer (it may be empty) of a text "\n\nHuman: ...\n\nAssistant: ...".

    None for anything else: text before the first turn, a first turn that is not the human's, a last one that is.
    Turns in a row of one speaker are one, with a newline between. A turn in the middle that is empty is left out.
    """
    turns = _joined(_turns(text)) if is_text(text) else []
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        return None
    *before, asked, answer = turns
    prompt = _joined([turn for turn in before if not is_blank(turn["content"])] + [asked])
    return (prompt, answer["content"]) if prompt[0]["role"] == "user" else None


def _turns(text: str) -> list[Message]:
    """The turns of a text, without the blank space around them; none where something stands before the first."""
    before, *rest = TURN.split(text.replace("\r\n", "\n"))
    if before.strip():
        return []
    said = zip(rest[::2], rest[1::2], strict=True)
    return [Message(role=ROLES[speaker], content=content.strip()) for speaker, content in said]


def _joined(turns: Iterable[Message]) -> list[Message]:
    joined: list[Message] = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"]:
            content = "\n".join(filter(None, [joined[-1]["content"], turn["content"]]))
            joined[-1] = Message(role=turn["role"], content=content)
        else:
            joined.append(turn)
    return joined


def _pair(name: str, chosen: Dialogue | None, rejected: Dialogue | None) -> Iterator[Row | Rejected]:
    """The row of the preferred answer, with a score of 1, and the other one, with 0."""
    if chosen is None or rejected is None:
        yield Rejected("malformed", name)
    elif chosen[0] != rejected[0]:
        yield Rejected("prompts_differ", name)
    else:
        answers: list[tuple[str, float | None]] = [(chosen[1], 1.0), (rejected[1], 0.0)]
        # an answer rated worse than none must not remain alone, as the best one
        yield from usable_row(name, chosen[0], answers[:1] if is_blank(chosen[1]) else answers)


def _completed(raw: Any, key: str) -> Dialogue | None:
    """The dialogue of `prompt`, which is open for an answer, and the answer at `key`."""
    prompt, answer = _field(raw, "prompt"), _field(raw, key)
    return dialogue(prompt + answer) if is_text(prompt) and is_text(answer) else None


def _field(raw: Any, key: str) -> Any:
    return raw.get(key) if isinstance(raw, dict) else None
