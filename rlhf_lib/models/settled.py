"""Chat templates as this project uses them: they say the same every day, begin a dialogue as the model was taught to
begin a text, and never read a token into what a message says."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import date
from itertools import groupby
from typing import TYPE_CHECKING

from rlhf_lib.common.rows import Message
from rlhf_lib.models.bounded import Unruly, apply

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What a template that asks for the day is told: the token ids of a prompt must not change overnight, or what was
# computed of them yesterday (reference log-probs, a checkpoint) would belong to other prompts. It is the day that
# Llama 3's own template falls back on.
TODAY = date(2024, 7, 26)
_DIRECTIVE = re.compile(r"%-?[aAbBdeHIjmMpSyY]")  # of strftime; %-d is glibc's day without a zero
_BY_CHANCE = re.compile(r"\|\s*random\b|\blipsum\b")  # what Jinja has of it
_FREEZES = "{%- macro strftime_now(format) -%}"
_BEGINS = "{{ bos_token }}"
_GUARD_BEGINS, _GUARD_ENDS = "{%- set guarded = namespace(messages=[]", "{%- set messages = guarded.messages -%}"
_GUARDED = re.compile(f"{re.escape(_GUARD_BEGINS)}.*?{re.escape(_GUARD_ENDS)}")
_GUARD = (
    _GUARD_BEGINS + ", text='') -%}{%- for message in messages -%}{%- if message['content'] is string -%}"
    "{%- set guarded.text = message['content'] -%}BREAK_UP"
    "{%- set guarded.messages = guarded.messages + [dict(message, content=guarded.text)] -%}{%- else -%}"
    "{%- set guarded.messages = guarded.messages + [message] -%}{%- endif -%}{%- endfor -%}" + _GUARD_ENDS
)
_TOGETHER = 8  # filters in one expression: Jinja's compiler takes minutes over one of 200, and breaks off at 400


def settle(tokenizer: PreTrainedTokenizerBase) -> None:
    """Change the tokenizer's chat template, where it has one, in place: its day becomes `TODAY`, dialogues begin with
    the BOS token where the tokenizer's texts do, and the text of a special token inside a message is broken up by a
    space. A template that is so already stays as it is. An `Unruly` where it cannot be made to."""
    if tokenizer.chat_template is None:
        return
    if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
        raise Unruly(
            tokenizer, f"is one of several ({', '.join(tokenizer.chat_template)}), of which none is the default"
        )
    template = tokenizer.get_chat_template()  # where there are several, the one that dialogues go through
    if chance := _BY_CHANCE.search(template):
        raise Unruly(tokenizer, f"writes something else each time ({chance[0]})")
    tokenizer.chat_template = freeze_date(template)
    tokenizer.chat_template = guard(tokenizer.chat_template, _structure(tokenizer))
    if adds_bos(tokenizer) and _first_token(tokenizer) not in (tokenizer.bos_token_id, None):
        tokenizer.chat_template = _BEGINS + tokenizer.chat_template


def freeze_date(template: str) -> str:
    """The template with a `strftime_now` of its own, which stands before the one that transformers gives it."""
    if not asks_for_the_day(template) or _FREEZES in template:
        return template
    filters = "".join(
        f" | replace('{directive}', '{_told(directive)}')" for directive in sorted({*_DIRECTIVE.findall(template)})
    )
    return f"{_FREEZES}{{{{- format{filters} -}}}}{{%- endmacro -%}}{template}"


def guard(template: str, tokens: Collection[str]) -> str:
    """The template behind a loop that breaks up tokens in the messages' texts: `<|end|>` becomes `< |end|>`.

    There may be a thousand tokens (Llama 3 reserves 250): those that begin alike are looked for where a text has their
    beginning. The filters are unrolled: in transformers' sandbox, a loop with method calls takes five times as long.
    """
    alike = groupby(sorted(token for token in tokens if len(token) > 1), key=lambda token: token[:2])
    loop = _GUARD.replace("BREAK_UP", "".join(_broken_up(beginning, list(those)) for beginning, those in alike))
    # in place of one that it has already, which a token that came later is not in
    return _GUARDED.sub(lambda _: loop, template) if _GUARDED.search(template) else loop + template


def _broken_up(beginning: str, tokens: Sequence[str]) -> str:
    """Jinja that puts a space behind the first character of each of some tokens that begin alike."""
    filters = [f" | replace({_quoted(token)}, {_quoted(f'{token[0]} {token[1:]}')})" for token in tokens]
    some = ("".join(filters[start : start + _TOGETHER]) for start in range(0, len(filters), _TOGETHER))
    steps = "".join(f"{{%- set guarded.text = guarded.text{those} -%}}" for those in some)
    return f"{{%- if {_quoted(beginning)} in guarded.text -%}}{steps}{{%- endif -%}}"


def _quoted(text: str) -> str:
    """A text as Jinja writes it, which reads no pairs of surrogates."""
    return json.dumps(text, ensure_ascii=False)


def _structure(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """The tokens that no message may spell out: special ones, and others that the template writes around messages.

    Tags that come in pairs, such as <think> and </think>, are parts of what a model says, and so are blank lines, for
    which some vocabularies have added tokens.
    """
    entries = tokenizer.added_tokens_decoder.values()
    added = {token.content: token.special for token in entries if not is_blank(token.content)}
    written = _rendered(tokenizer, add_generation_prompt=False) or ""
    pairs = {name for name in added if name.startswith("</") or f"</{name[1:]}" in added}
    return {name for name, special in added.items() if special or (name in written and name not in pairs)}


def is_blank(token: str) -> bool:
    """Whether a token is white space alone, which SentencePiece writes as U+2581."""
    return not token.replace("\u2581", " ").strip()


def asks_for_the_day(template: str) -> bool:
    """Whether a template calls for the date."""
    return "strftime_now" in template


def _told(directive: str) -> str:
    text = TODAY.strftime(directive.replace("-", ""))
    return text.lstrip("0 ") if "-" in directive else text


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts its BOS token before a text: the model was then trained with one before everything."""
    bos = tokenizer.bos_token_id
    with_special, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    return bos is not None and with_special[:1] == [bos] and plain[:1] != [bos]


def begins_with(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The BOS token where the chat template begins a dialogue with it; else None."""
    first = _first_token(tokenizer)
    return tokenizer.bos_token if first is not None and first == tokenizer.bos_token_id else None


def _first_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The first token of a dialogue; None of a template that takes no plain one."""
    text = _rendered(tokenizer, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"][0] if text else None


def _rendered(tokenizer: PreTrainedTokenizerBase, add_generation_prompt: bool) -> str | None:
    """A question, with its answer unless that is asked for, as the template writes it; None where it takes it neither
    alone nor after a system turn."""
    question, answer = Message(role="user", content="a"), Message(role="assistant", content="a")
    asked = [question] if add_generation_prompt else [question, answer]
    for messages in ([Message(role="system", content="a"), *asked], asked):
        with suppress(Exception):  # a template raises what it likes; `templates` tells it by the row
            return apply(tokenizer, messages, add_generation_prompt)
    return None
