"""The true quality of a demo answer, by rules: what the noisy ratings of the demo are a picture of.

A response is taken apart into pleasantries, rambling and a core.  The whole core must be made of
sentences that belong to the very task; looking for single words would reward answers that only mention them.
"""

import functools
import re
from dataclasses import dataclass

from rlhf_lib.demo.grammar import Task, find_task, sentence_frames, write_sentence
from rlhf_lib.demo.vocabulary import CATEGORIES, CLOSERS, OPENERS, RAMBLES, REFUSALS, WISHES

ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")
LOWEST, HIGHEST = 1, 5

# Points taken from helpfulness and instruction following, each.
RAMBLE_COST, REPEAT_COST, UNASKED_WISH_COST, GUSHING_COST = 1, 2, 3, 1
FREE_PLEASANTRIES = 1

_WORD = r"[A-Za-z]+"
_LIST_SHAPES = {
    "commas": rf"{_WORD}(?:, {_WORD})*",
    "bullets": rf"- {_WORD}(?:\n- {_WORD})*",
    "numbers": rf"1\. {_WORD}(?:\n\d\. {_WORD})*",
}


@dataclass(frozen=True)
class Analysis:
    """What was found in a response.

    form: "good", "mediocre", or "none" when no sentence of the task was recognised.
    content: share of right content in [0, 1]; None when form is "none".
    rambles, pleasantries, wishes: number of such stock phrases.  repeats: times the core is said again.
    refusal: the core is a refusal.
    """

    form: str = "none"
    content: float | None = None
    rambles: int = 0
    repeats: int = 0
    pleasantries: int = 0
    wishes: int = 0
    refusal: bool = False


def _take_front(text: str, phrases: list[str]) -> tuple[str, list[str]]:
    taken: list[str] = []
    while True:
        phrase = next((p for p in phrases if text == p or text.startswith((f"{p} ", f"{p}\n"))), None)
        if phrase is None:
            return text, taken
        taken.append(phrase)
        text = text[len(phrase) :].lstrip()


def _take_back(text: str, phrases: list[str]) -> tuple[str, list[str]]:
    taken: list[str] = []
    while True:
        phrase = next((p for p in phrases if text == p or text.endswith((f" {p}", f"\n{p}"))), None)
        if phrase is None:
            return text, taken
        taken.append(phrase)
        text = text[: -len(phrase)].rstrip()


@functools.cache
def _sentence_pattern(task: Task, frame: str) -> str:
    """Regular expression of one sentence; its only group is the answer."""
    before, after = write_sentence(task, frame, "\0").split("\0")
    answer = "[a-z ]+" if task.group == "polite" else _WORD
    return f"{re.escape(before)}({answer}){re.escape(after)}"


def _read_sentences(task: Task, core: str) -> tuple[str, float, int] | None:
    """(frame, content, repeats) of a core made of one sentence of the task, said once or more."""
    for frame in sentence_frames(task):
        unit = _sentence_pattern(task, frame)
        if not re.fullmatch(f"{unit}(?: {unit})*", core):
            continue
        # A bare answer begins its sentence, but without the capital it is the same word.
        wanted = {task.answer, task.answer.capitalize()} if frame == "bare" else {task.answer}
        said = re.findall(unit, core)
        return frame, float(all(answer in wanted for answer in said)), len(said) - 1
    return None


def _read_list(task: Task, core: str) -> tuple[str, float, int] | None:
    """(frame, content, repeats) of a core that is a list in any known shape."""
    unit = rf"Here are some {task.argument}: ({_WORD}(?: and {_WORD})*)\."
    if re.fullmatch(f"{unit}(?: {unit})*", core):
        blocks = [block.split(" and ") for block in re.findall(unit, core)]
        return "some", min(_list_content(task, items) for items in blocks), len(blocks) - 1
    frame = next((name for name, shape in _LIST_SHAPES.items() if re.fullmatch(shape, core)), None)
    if frame is None:
        return None
    if frame == "numbers" and re.findall(r"\d+", core) != [str(i + 1) for i in range(core.count("\n") + 1)]:
        return None
    return frame, _list_content(task, re.findall(_WORD, core)), 0


def _list_content(task: Task, items: list[str]) -> float:
    """Different right items over the items that there are or should be, whichever is more."""
    right = [item for item in CATEGORIES[task.argument] if item in items]
    return min(task.count, len(right)) / max(task.count, len(items))


def analyse(task: Task, response: str) -> Analysis:
    """Take a response apart.  Never raises; text that is no answer to the task has form "none"."""
    core, openers = _take_front(response.strip(), OPENERS)
    core, endings = _take_back(core, CLOSERS + WISHES)
    wishes = sum(ending in WISHES for ending in endings)
    pleasantries = len(openers) + len(endings) - wishes
    if core in REFUSALS:
        return Analysis(pleasantries=pleasantries, wishes=wishes, refusal=True)
    core, before = _take_front(core, RAMBLES)
    core, behind = _take_back(core, RAMBLES)
    rambles = len(before) + len(behind)
    found = _read_list(task, core) if task.group == "list" else _read_sentences(task, core)
    if found is None:
        return Analysis(rambles=rambles, pleasantries=pleasantries, wishes=wishes)
    frame, content, repeats = found
    wanted = task.forms.good
    form = "good" if frame == wanted.frame and (wishes > 0 or not wanted.wish) else "mediocre"
    return Analysis(form, content, rambles, repeats, pleasantries, wishes)


def _base_ratings(form: str, content: float) -> tuple[int, int, int]:
    """(helpfulness, instruction following, truth) before deductions."""
    good = form == "good"
    if content == 1:
        return (HIGHEST, HIGHEST, HIGHEST) if good else (2, LOWEST, HIGHEST)
    helpful = LOWEST + round((2 if good else 1) * content)
    return helpful, 3 if good else LOWEST, LOWEST + round(3 * content)


def aspect_ratings(task: Task, response: str) -> dict[str, int]:
    """True rating of each aspect of `ASPECTS`, whole numbers from 1 to 5.  Never raises."""
    found = analyse(task, response)
    if found.refusal:
        return dict(zip(ASPECTS, (LOWEST, 4, LOWEST, 3), strict=True))
    if found.content is None:
        harmless = 2 if found.rambles else LOWEST
        return dict(zip(ASPECTS, (LOWEST, harmless, LOWEST, harmless), strict=True))
    helpful, following, truth = _base_ratings(found.form, found.content)
    asked_wishes = int(task.answer_format == "wish")
    cost = (
        RAMBLE_COST * found.rambles
        + REPEAT_COST * (found.repeats > 0)
        + UNASKED_WISH_COST * (found.wishes > asked_wishes)
        + GUSHING_COST * (found.pleasantries > FREE_PLEASANTRIES)
    )
    ratings = (max(LOWEST, helpful - cost), truth, max(LOWEST, following - cost), truth)
    return dict(zip(ASPECTS, ratings, strict=True))


def gold(instruction: str, response: str) -> float:
    """True quality in [0, 1]: the mean of the four aspects, 0 all at the lowest, 1 all at the highest.

    0.0 for an instruction that the grammar does not make.  Never raises.
    """
    task = find_task(instruction)
    if task is None:
        return 0.0
    ratings = aspect_ratings(task, response).values()
    return sum(rating - LOWEST for rating in ratings) / (len(ASPECTS) * (HIGHEST - LOWEST))


def answer_format(instruction: str) -> str:
    """The format an instruction asks for: "plain", "word", "sentence", "wish", "commas", "bullets", "numbers".

    Polite requests count as "plain" or "wish".  "unknown" for an instruction that the grammar does not make.
    """
    task = find_task(instruction)
    return "unknown" if task is None else task.answer_format
