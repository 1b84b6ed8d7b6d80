"""Forums: Reddit's comments (SHP) and Stack Exchange's answers, with the scores that readers gave them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from rlhf_lib.common.rows import Message, Row, as_score, is_text
from rlhf_lib.data.load.messages import usable_row
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.load.reader import Rejected
from rlhf_lib.data.load.scores import read_score

BLOCKS = {"p", "div", "ul", "ol", "li", "pre", "blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "table", "tr"}


def parse_shp(raw: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    """One record of stanfordnlp/SHP: a post and two comments; `labels` is 1 where the first is preferred, else 0."""
    fields = raw if isinstance(raw, dict) else {}
    domain, post, first, second = (fields.get(key) for key in ("domain", "history", "human_ref_A", "human_ref_B"))
    label = read_score(fields.get("labels"))  # a text in CSV
    if not (is_text(domain) and is_text(post) and is_text(first) and is_text(second)) or label not in (0, 1):
        yield Rejected("malformed", source.name)
        return
    name = f"{source.name}/{re.sub('_(train|validation|test)$', '', domain)}"
    scores = read_score(fields.get("score_A")), read_score(fields.get("score_B"))
    if _contradicts(label, *scores):
        yield Rejected("label_contradicts_score", name)
        return
    answers = list(zip((first, second), scores, strict=True))
    yield from usable_row(name, [Message(role="user", content=post)], answers)


def parse_stack_exchange(raw: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    """One record {question, answers: [{text, pm_score}], metadata} of HuggingFaceH4/stack-exchange-preferences."""
    fields = raw if isinstance(raw, dict) else {}
    question, answers, site = html_text(fields.get("question")), fields.get("answers"), _site(fields.get("metadata"))
    name = f"{source.name}/{site}" if site else source.name
    if question is None or not isinstance(answers, list):
        yield Rejected("malformed", name)
        return
    responses = [_answer(answer) for answer in answers]
    yield from usable_row(name, [Message(role="user", content=question)], responses)


def html_text(html: Any) -> str | None:
    """The text of a piece of HTML, with the marks of Markdown for code, lists and quotes; None where it is no text."""
    if not is_text(html):
        return None
    parser = _Text()
    try:
        parser.feed(html)
        parser.close()
    except AssertionError:  # which the standard library's parser raises for a "<![" that it does not know
        return None
    parser.end_block()
    return "".join(parser.parts)


def _contradicts(label: float | None, first: float | None, second: float | None) -> bool:
    return first is not None and second is not None and (second > first if label else first > second)


def _answer(answer: Any) -> tuple[str | None, float | None]:
    fields = answer if isinstance(answer, dict) else {}
    return html_text(fields.get("text")), as_score(fields.get("pm_score"))


def _site(metadata: Any) -> str | None:
    """The host of the first web address."""
    for url in metadata if isinstance(metadata, list) else ():
        if isinstance(url, str) and (match := re.match(r"https?://([A-Za-z0-9.-]+)", url)):
            return match[1]
    return None


class _Text(HTMLParser):
    """Gathers text block by block: a paragraph, a list item, a piece of code."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []  # the blocks that have ended, and what separates them
        self.block: list[str] = []
        self.code: list[str] | None = None  # what has been read of an inline piece of code, or of a <pre>
        self.in_pre = False
        self.lists: list[int | None] = []  # of each open list the number of its last item; None: it has no numbers
        self.item = ""  # the mark of a list item that has no text yet
        self.quotes = 0  # open ones

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.in_pre:
            return
        if tag in BLOCKS:
            self.end_block()
        if tag in ("ul", "ol"):
            self.lists.append(0 if tag == "ol" else None)
        elif tag == "li":
            self.item = self._item_mark()
        elif tag == "blockquote":
            self.quotes += 1
        elif tag in ("pre", "code") and self.code is None:
            self.code, self.in_pre = [], tag == "pre"
        elif tag == "br":
            (self.block if self.code is None else self.code).append("\n")
        elif tag == "sup":
            self.handle_data("^")  # 10^6 is not 106

    def handle_endtag(self, tag: str) -> None:
        if self.in_pre and tag != "pre":
            return
        if tag in BLOCKS:
            self.end_block()
        if tag in ("ul", "ol", "li"):
            self.item = ""
        if tag in ("ul", "ol") and self.lists:
            self.lists.pop()
        elif tag == "blockquote":
            self.quotes = max(0, self.quotes - 1)
        elif tag == "code":
            self._end_code()

    def handle_data(self, data: str) -> None:
        text = data if self.in_pre else re.sub(r"\s+", " ", data)
        (self.block if self.code is None else self.code).append(text)

    def end_block(self) -> None:
        """Add what has been gathered, as lines of their own."""
        if self.in_pre:
            lines = self._end_pre()
        else:
            self._end_code()
            lines = [re.sub(" +", " ", line).strip() for line in "".join(self.block).strip().split("\n")]
        self.block = []
        if lines == [""]:
            return
        if self.parts:
            self.parts.append("\n" if self.item else "\n\n")
        lines[0] = self.item + lines[0]
        self.parts.append("\n".join("> " * self.quotes + line for line in lines))
        self.item = ""

    def _item_mark(self) -> str:
        indent = "  " * (len(self.lists) - 1)
        if not self.lists or self.lists[-1] is None:
            return f"{indent}- "
        self.lists[-1] += 1
        return f"{indent}{self.lists[-1]}. "

    def _end_code(self) -> None:
        text, self.code = "".join(self.code or ()), None
        if text:
            mark = _fence("`", text)
            self.block.append(f"{mark}{text}{mark}")

    def _end_pre(self) -> list[str]:
        text, self.code, self.in_pre = "".join(self.code or ()).strip("\n"), None, False
        mark = _fence("```", text)
        return [mark, *text.split("\n"), mark]


def _fence(mark: str, text: str) -> str:
    """Backticks that do not end within `text`."""
    while mark in text:
        mark += "`"
    return mark
