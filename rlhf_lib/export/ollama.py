"""Ollama's Modelfile: our chat template as a Go template, what ends an answer, and how it is sampled.

A Jinja template is a program; what Ollama has is another language. So the template is tried: what stands between the
messages of a few dialogues is taken as what always stands there, and further dialogues must then come out the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rlhf_lib.common.rows import Message
from rlhf_lib.models.settled import adds_bos
from rlhf_lib.models.templates import TemplateFault, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_S, _U, _A = "system", "user", "assistant"
_TRIED = ((_U,), (_U, _A, _U), (_U, _A, _U, _A, _U), (_S, _U), (_S, _U, _A, _U), (_S, _U, _A, _U, _A, _U))
_TEMPLATE = """{{- $before := "" -}}
{{- range .Messages -}}
SYSTEM{{- OR_IF eq .Role "user" -}}
{{- if eq $before "" -}}{{ FIRST }}{{- else if eq $before "system" -}}{{ BEHIND }}{{- else -}}{{ AGAIN }}{{- end -}}
{{ .Content }}
{{- else if eq .Role "assistant" -}}{{ ANSWER }}{{ .Content }}
{{- end -}}
{{- $before = .Role -}}
{{- end -}}
{{ ASKED }}"""
_SYSTEM = '{{- if eq .Role "system" -}}{{ SYSTEM }}{{ .Content }}\n'


class Unturnable(Exception):
    """A chat template that this cannot write in Go, and why."""


class Pieces(NamedTuple):
    """What a template writes around messages: before a system's, between it and the user's, before the first of a
    dialogue without one, before an answer and before the question behind it, and at the end. system: None where the
    template takes no such message."""

    system: str | None
    behind_system: str
    first: str
    answer: str
    again: str
    asked: str

    def render(self, messages: Sequence[Message]) -> str:
        """A dialogue as these pieces make it."""
        written, before = "", ""
        for message in messages:
            of_user = {"": self.first, _S: self.behind_system}.get(before, self.again)
            written += {_S: self.system or "", _U: of_user, _A: self.answer}[message["role"]] + message["content"]
            before = message["role"]
        return written + self.asked


def pieces(tokenizer: PreTrainedTokenizerBase) -> Pieces:
    """What the tokenizer's chat template writes around messages; an `Unturnable` where that is not always the same."""
    dialogues = {roles: [Message(role=role, content=_said(i)) for i, role in enumerate(roles)] for roles in _TRIED}
    written = {}
    for roles, messages in dialogues.items():
        try:
            written[roles] = render(tokenizer, messages, add_generation_prompt=True)
        except TemplateFault as fault:
            if roles[0] != _S:
                raise Unturnable(str(fault)) from None
    first, answer, again, asked = _between(written[_U, _A, _U])
    system, behind_system = None, first
    if (_S, _U, _A, _U) in written:
        system, behind_system = _between(written[_S, _U, _A, _U])[:2]
    found = Pieces(system, behind_system, first, answer, again, asked)
    for roles, text in written.items():
        if found.render(dialogues[roles]) != text:
            raise Unturnable(f"what it writes around a message depends on more than its role ({', '.join(roles)})")
    return found


def _said(number: int) -> str:
    """What a message says while the template is tried: each something else, and each of another length."""
    return f"W{number}w" + " and so on" * number


def _between(text: str) -> list[str]:
    """What stands around the messages of a dialogue."""
    parts, number = [], 0
    while _said(number) in text:
        before, text = text.split(_said(number), 1)
        parts.append(before)
        number += 1
    return [*parts, text]


def go_template(found: Pieces, bos: str = "") -> str:
    """The pieces as a template of Go, less the token that the server itself puts before every prompt."""
    system = None if found.system is None else found.system.removeprefix(bos)
    first = found.first.removeprefix(bos)
    behind = found.behind_system if system is not None else first
    text = _TEMPLATE.replace("SYSTEM", "" if system is None else _SYSTEM.replace("SYSTEM", _quoted(system)))
    text = text.replace("OR_IF", "if" if system is None else "else if")
    words = {"FIRST": first, "BEHIND": behind, "AGAIN": found.again, "ANSWER": found.answer, "ASKED": found.asked}
    for word, piece in words.items():
        text = text.replace(f"{{{{ {word} }}}}", f"{{{{ {_quoted(piece)} }}}}")
    return text


def _quoted(text: str) -> str:
    """A text as Go quotes it; and without three quotes in a row, which would end the Modelfile's template."""
    return json.dumps(text, ensure_ascii=False).replace('\\"', "\\u0022")


def modelfile(
    tokenizer: PreTrainedTokenizerBase,
    weights: str,
    sampling: Mapping[str, Any],
    stops: Sequence[str],
    context: int | None,
) -> str:
    """The Modelfile. weights: the GGUF's name; sampling: names and values of a generation config; stops: texts.

    An `Unturnable` where the chat template cannot be written in Go.
    """
    found = pieces(tokenizer)
    bos = tokenizer.bos_token if adds_bos(tokenizer) and isinstance(tokenizer.bos_token, str) else ""
    lines = [f"# ollama create NAME -f Modelfile, in this folder, where {weights} is", f"FROM ./{weights}"]
    lines += [f'TEMPLATE """{go_template(found, bos)}"""']
    lines += [f"PARAMETER {name} {value}" for name, value in _parameters(sampling, context)]
    # a Modelfile knows no escapes; three quotes hold a text with a quote or a line's end in it
    lines += [f'PARAMETER stop """{stop}"""' if {*'"\n'} & {*stop} else f'PARAMETER stop "{stop}"' for stop in stops]
    return "\n".join(lines) + "\n"


def _parameters(sampling: Mapping[str, Any], context: int | None) -> Iterator[tuple[str, Any]]:
    """All that Ollama would otherwise choose itself."""
    yield "temperature", sampling["temperature"] if sampling.get("do_sample") else 0
    yield "top_k", sampling.get("top_k") or 0
    yield "top_p", sampling.get("top_p") or 1.0
    yield "min_p", 0
    yield "repeat_penalty", 1
    if sampling.get("max_new_tokens"):
        yield "num_predict", sampling["max_new_tokens"]
    if context:
        yield "num_ctx", context
