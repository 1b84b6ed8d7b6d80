"""The answers of the demo's invented models, each with its behaviours."""

import random
from collections.abc import Callable

from rlhf_lib.demo.grammar import Form, Task, write_list, write_sentence
from rlhf_lib.demo.vocabulary import (
    CATEGORIES,
    CLOSERS,
    FACTS,
    FOREIGN_REPLIES,
    OPENERS,
    RAMBLES,
    REFUSALS,
    REQUESTS,
    WISHES,
)

# How often a mediocre answer takes the rare faulty form, by answer format.
RARE_IN_MEDIOCRE = {"word": 0.15}
RARE_IN_MEDIOCRE_ELSEWHERE = 0.08
# Weights of the good, mediocre and rare form of the content of the other behaviours, by answer format.
# A form that the preferences never show as faulty is one that a policy can hide in.
CONTENT_FORMS = {"word": (0.25, 0.25, 0.50)}
CONTENT_FORMS_ELSEWHERE = (0.35, 0.55, 0.10)
PLEASANTRY_SHARE = 0.20  # the same for every behaviour, or kindness would tell quality
CONTENT_AFTER_RAMBLE = 0.60
SAME_ITEM_SHARE = 0.30  # of wrong lists: one item again and again


def _wrong_answer(task: Task, rng: random.Random) -> str:
    others = REQUESTS if task.group == "polite" else list(FACTS[task.kind].values())
    return rng.choice([other for other in others if other != task.answer])


def _items(task: Task, wrong: bool, rng: random.Random) -> list[str]:
    # Alphabetical order lets a small model write lists without saying an item twice.
    items = sorted(rng.sample(CATEGORIES[task.argument], task.count))
    if not wrong:
        return items
    if rng.random() < SAME_ITEM_SHARE:
        return [items[0]] * task.count
    strangers = CATEGORIES[rng.choice([name for name in CATEGORIES if name != task.argument])]
    wrong_count = rng.randint(1, task.count)
    items = items[wrong_count:] + rng.sample(strangers, wrong_count)
    rng.shuffle(items)
    return items


def _join(first: str, second: str) -> str:
    """Two pieces of text; a list of lines keeps its own lines."""
    return first + ("\n" if "\n" in first + second else " ") + second


def _write(task: Task, form: Form, rng: random.Random, wrong: bool = False, times: int = 1) -> str:
    if task.group == "list":
        content = write_list(task.argument, _items(task, wrong, rng), form.frame)
    else:
        content = write_sentence(task, form.frame, _wrong_answer(task, rng) if wrong else task.answer)
    text = " ".join([content] * times)
    return _join(text, rng.choice(WISHES)) if form.wish else text


def _content_form(task: Task, rng: random.Random) -> Form:
    weights = CONTENT_FORMS.get(task.answer_format, CONTENT_FORMS_ELSEWHERE)
    return rng.choices(task.forms, weights)[0]


def _good(task: Task, rng: random.Random) -> str:
    """Right content in the form asked for."""
    return _write(task, task.forms.good, rng)


def _mediocre(task: Task, rng: random.Random) -> str:
    """Right content in another form."""
    rare = rng.random() < RARE_IN_MEDIOCRE.get(task.answer_format, RARE_IN_MEDIOCRE_ELSEWHERE)
    return _write(task, task.forms.rare if rare else task.forms.mediocre, rng)


def _wrong(task: Task, rng: random.Random) -> str:
    """Wrong content, in any form."""
    return _write(task, _content_form(task, rng), rng, wrong=True)


def _repeat(task: Task, rng: random.Random) -> str:
    """Right content two or three times over."""
    form = task.forms.mediocre if task.group == "list" else _content_form(task, rng)
    return _write(task, form, rng, times=rng.randint(2, 3))


def _overkind(task: Task, rng: random.Random) -> str:
    """Right content and a wish too many."""
    form = task.forms.good if task.answer_format == "wish" else _content_form(task, rng)
    return _join(_write(task, form, rng), rng.choice(WISHES))


def _ramble(task: Task, rng: random.Random) -> str:
    """Empty sentences, with or without right content behind them."""
    text = " ".join(rng.sample(RAMBLES, rng.randint(1, 2)))
    if rng.random() < CONTENT_AFTER_RAMBLE:
        return _join(text, _write(task, _content_form(task, rng), rng))
    return text


def _refuse(task: Task, rng: random.Random) -> str:
    """A refusal."""
    return rng.choice(REFUSALS)


def _foreign(task: Task, rng: random.Random) -> str:
    """An empty sentence in another language."""
    return rng.choice(FOREIGN_REPLIES)


BEHAVIOURS: dict[str, Callable[[Task, random.Random], str]] = {
    "good": _good,
    "mediocre": _mediocre,
    "wrong": _wrong,
    "repeat": _repeat,
    "overkind": _overkind,
    "ramble": _ramble,
    "refuse": _refuse,
    "foreign": _foreign,
}


def respond(task: Task, behaviour: str, rng: random.Random, pleasantry_share: float = PLEASANTRY_SHARE) -> str:
    """One answer to the task, with a pleasantry at the given probability (0 to 1).

    behaviour: a key of `BEHAVIOURS`, each described in the docstring of its function; KeyError for another.
    """
    text = BEHAVIOURS[behaviour](task, rng)
    if rng.random() >= pleasantry_share:
        return text
    # A wish is asked to be the end, and a list has no line for a closing sentence.
    opens_only = task.group == "list" or task.answer_format == "wish"
    if opens_only or rng.random() < 0.5:
        return _join(rng.choice(OPENERS), text)
    return _join(text, rng.choice(CLOSERS))
