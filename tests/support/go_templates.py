"""As much of Go's text/template as the Modelfiles here are written in: range, if and else if with eq, a variable,
quoted texts, and white space that is trimmed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

TAG = re.compile(r"\{\{(- )?(.*?)( -)?\}\}", re.DOTALL)
WORD = re.compile(r'"(?:[^"\\]|\\.)*"|\S+')
Token = tuple[str, list[str]]  # ("text", [it]) or ("tag", its words)


def tokens(template: str) -> list[Token]:
    found: list[Token] = []
    place = 0
    while match := TAG.search(template, place):
        text = template[place : match.start()]
        found += [("text", [text.rstrip() if match[1] else text]), ("tag", WORD.findall(match[2]))]
        place = match.end()
        if match[3]:
            place += len(template[place:]) - len(template[place:].lstrip())
    return [*found, ("text", [template[place:]])]


class Rendering:
    """One template with the messages of one request."""

    def __init__(self, template: str, messages: Sequence[Mapping[str, str]]) -> None:
        self.tokens, self.messages = tokens(template), messages
        self.variables: dict[str, str] = {}
        self.dot: Mapping[str, str] = {}

    def value(self, word: str) -> str:
        if word.startswith('"'):
            return json.loads(word)
        return self.variables[word] if word.startswith("$") else self.dot[word[1:].lower()]

    def run(self, place: int = 0, live: bool = True) -> tuple[str, int]:
        """The text from a place up to the `end` or `else` that closes it, and the place of that."""
        said = ""
        while place < len(self.tokens):
            kind, words = self.tokens[place]
            if kind == "text":
                said += words[0] if live else ""
            elif words[0] in ("end", "else"):
                return said, place
            elif words[0] == "range":
                assert words == ["range", ".Messages"]
                body = ""
                for message in self.messages:
                    self.dot = message
                    body += self.run(place + 1)[0]
                said, place = said + body, self.run(place + 1, live=False)[1]
            elif words[0] == "if":
                body, place = self.branches(place, words, live)
                said += body
            elif live and len(words) == 3 and words[1] in (":=", "="):
                self.variables[words[0]] = self.value(words[2])
            elif live:
                (word,) = words
                said += self.value(word)
            place += 1
        return said, place

    def branches(self, place: int, words: list[str], live: bool) -> tuple[str, int]:
        """What the first branch says whose condition holds, and the place of the `end`."""
        said, done = "", not live
        while words[0] != "end":
            condition = words[words.index("if") + 1 :] if "if" in words else []
            assert not condition or condition[0] == "eq"
            holds = not done and (not condition or self.value(condition[1]) == self.value(condition[2]))
            body, place = self.run(place + 1, holds)
            said, done = said + body, done or holds
            words = self.tokens[place][1]
        return said, place


def render(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """What Go makes of a template and the messages of a request."""
    return Rendering(template, messages).run()[0]
