"""The small language of the demo: what instructions ask for, and the forms that answers take.

Every instruction is a phrasing filled with an argument, followed by a sentence that asks for a format.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rlhf_lib.demo.vocabulary import (
    CATEGORIES,
    COUNTS,
    FACT_FORMATS,
    FACTS,
    FORMAT_SENTENCES,
    FULL_SENTENCES,
    LIST_FORMATS,
    PHRASINGS,
    POLITE_FORMATS,
    REQUESTS,
)


class Form(NamedTuple):
    """How an answer is put: the name of its frame, and whether a wish follows it."""

    frame: str
    wish: bool = False


class Forms(NamedTuple):
    """The forms of one format: the one asked for, the usual fault, and a rarer fault."""

    good: Form
    mediocre: Form
    rare: Form


_FULL, _BARE, _SHORT, _ASK = Form("full"), Form("bare"), Form("short"), Form("ask")
_COMMAS, _BULLETS, _NUMBERS, _SOME = Form("commas"), Form("bullets"), Form("numbers"), Form("some")
# The usual fault of a one-word prompt is not the full sentence: that one is right under the other formats,
# and a learner that sees it most often here carries it over to the one-word prompts.
FORMS: dict[tuple[str, str], Forms] = {
    ("fact", "plain"): Forms(_FULL, _BARE, _SHORT),
    ("fact", "sentence"): Forms(_FULL, _BARE, _SHORT),
    ("fact", "word"): Forms(_BARE, _SHORT, _FULL),
    ("fact", "wish"): Forms(Form("full", wish=True), _FULL, Form("bare", wish=True)),
    ("polite", "plain"): Forms(_ASK, Form("order"), Form("please")),
    ("polite", "wish"): Forms(Form("ask", wish=True), Form("order"), _ASK),
    ("list", "commas"): Forms(_COMMAS, _SOME, _BULLETS),
    ("list", "bullets"): Forms(_BULLETS, _SOME, _NUMBERS),
    ("list", "numbers"): Forms(_NUMBERS, _SOME, _COMMAS),
}
_FACT_FRAMES = {"bare": "{A}.", "short": "It is {a}."}
_POLITE_FRAMES = {"ask": "Could you please {a}?", "please": "Please {a}.", "order": "You must {a}."}


@dataclass(frozen=True)
class Task:
    """What one instruction asks for.

    kind: a key of `PHRASINGS`.  argument: the country, word, request or list category.
    answer: the right answer as spelled inside a sentence ("" for lists, which have many).
    answer_format: a key of `FORMAT_SENTENCES`.  count: items of a list (1 for the other kinds).
    """

    kind: str
    argument: str
    answer: str
    answer_format: str
    count: int = 1

    @property
    def group(self) -> str:
        """One of "fact", "list" and "polite"."""
        return "fact" if self.kind in FACTS else self.kind

    @property
    def forms(self) -> Forms:
        """The good form and the faulty ones."""
        return FORMS[self.group, self.answer_format]


def sentence_frames(task: Task) -> dict[str, str]:
    """Frame name -> template with {x} (argument), {a} (answer), {A} (answer, first letter a capital).

    For facts and polite requests; an empty table for lists.
    """
    if task.group == "fact":
        return {"full": FULL_SENTENCES[task.kind], **_FACT_FRAMES}
    return dict(_POLITE_FRAMES) if task.group == "polite" else {}


def write_sentence(task: Task, frame: str, answer: str) -> str:
    """The answer in one frame of the task.  KeyError for a frame that the task does not have."""
    template = sentence_frames(task)[frame]
    return template.format(x=task.argument, a=answer, A=answer[:1].upper() + answer[1:])


def write_list(category: str, items: list[str], frame: str) -> str:
    """The items as "commas", "bullets", "numbers" or the sentence "some".  ValueError for another frame."""
    if frame == "commas":
        return ", ".join(items)
    if frame == "bullets":
        return "\n".join(f"- {item}" for item in items)
    if frame == "numbers":
        return "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))
    if frame == "some":
        return f"Here are some {category}: {' and '.join(items)}."
    raise ValueError(f"no list frame {frame!r}")


def _stems() -> Iterator[tuple[str, Task]]:
    """Instructions without their format sentence; the format of the task is still empty."""
    for kind, table in FACTS.items():
        for phrasing, (argument, answer) in itertools.product(PHRASINGS[kind], table.items()):
            yield phrasing.format(x=argument), Task(kind, argument, answer, "")
    for phrasing, (count, word), category in itertools.product(PHRASINGS["list"], COUNTS.items(), CATEGORIES):
        yield phrasing.format(n=word, x=category), Task("list", category, "", "", count)
    for phrasing, request in itertools.product(PHRASINGS["polite"], REQUESTS):
        yield phrasing.format(x=request), Task("polite", request, request, "")


def _all_instructions() -> dict[str, Task]:
    formats = {"fact": FACT_FORMATS, "list": LIST_FORMATS, "polite": POLITE_FORMATS}
    table = {}
    for stem, task in _stems():
        for name in formats[task.group]:
            for ending in FORMAT_SENTENCES[name]:
                text = f"{stem} {ending}".strip()
                table[text] = Task(task.kind, task.argument, task.answer, name, task.count)
    return table


def normal_form(instruction: str) -> str:
    """Lower case, no punctuation, single spaces: what stays the same under careless copying."""
    return " ".join(re.sub(r"[\W_]+", " ", instruction).casefold().split())


INSTRUCTIONS: dict[str, Task] = _all_instructions()
_BY_NORMAL_FORM: dict[str, Task] = {normal_form(text): task for text, task in INSTRUCTIONS.items()}


def find_task(instruction: str) -> Task | None:
    """The task of an instruction, whatever its spacing, case and punctuation; None if the grammar lacks it."""
    return _BY_NORMAL_FORM.get(normal_form(instruction))
