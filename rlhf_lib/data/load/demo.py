"""Synthetic preference data in the schema of openbmb/UltraFeedback, dirt included.

Invented models answer the instructions of `rlhf_lib/demo/grammar.py` (`demo_answers.py` has how); an annotator rates
the answers with noise and a liking for pleasantries.  The most frequent answer has the right content in the wrong form,
so that a model trained on all answers has something to gain from the preferences.
"""

import copy
import itertools
import random
from collections.abc import Callable
from typing import Any

from rlhf_lib.common.rows import JsonObject
from rlhf_lib.data.load.demo_answers import respond
from rlhf_lib.demo.gold import ASPECTS, HIGHEST, LOWEST, aspect_ratings
from rlhf_lib.demo.grammar import INSTRUCTIONS
from rlhf_lib.demo.vocabulary import CLOSERS, LANGUAGES, OPENERS

# Weights of the behaviours of each model; the names are invented.
MODELS: dict[str, dict[str, float]] = {
    "demo-careful-13b": {"good": 0.70, "mediocre": 0.25, "wrong": 0.05},
    "demo-friendly-7b": {"good": 0.50, "mediocre": 0.25, "overkind": 0.25},
    "demo-terse-7b": {"good": 0.10, "mediocre": 0.85, "wrong": 0.05},
    "demo-hasty-3b": {"good": 0.20, "mediocre": 0.65, "wrong": 0.15},
    "demo-rambler-7b": {"good": 0.10, "mediocre": 0.20, "ramble": 0.70},
    "demo-freeform-3b": {"good": 0.10, "mediocre": 0.55, "overkind": 0.25, "repeat": 0.10},
    "demo-shy-1b": {"good": 0.10, "mediocre": 0.20, "refuse": 0.70},
    "demo-babel-1b": {"mediocre": 0.20, "repeat": 0.50, "foreign": 0.30},
}
COMPLETIONS = 4


NOISE = 0.35  # standard deviation of the annotator, in rating points per aspect
PLEASANTRY_BIAS = 0.15  # rating points added for a pleasantry, on every aspect
OVERALL_NOISE = 0.5  # standard deviation, in points of the overall score (1 to 10)

# Dirt, as shares of the instructions asked for; each kind occurs at least once.
FOREIGN_SHARE, DUPLICATE_SHARE, MALFORMED_SHARE = 0.04, 0.02, 0.004

RATIONALES = {
    5: "The response is fully adequate.",
    4: "A minor issue, otherwise fine.",
    3: "Partly adequate.",
    2: "Clear problems.",
    1: "Not adequate.",
}
SYSTEM_PROMPTS = {
    "helpfulness": "You are a helpful assistant.",
    "honesty": "You are an honest assistant.",
    "truthfulness": "You are a truthful assistant.",
}


def _annotations(ratings: list[int]) -> dict[str, dict[str, Any]]:
    """The four aspects as upstream writes them: ratings are strings, and two aspects have more fields."""
    table: dict[str, dict[str, Any]] = {}
    for aspect, rating in zip(ASPECTS, ratings, strict=True):
        table[aspect] = {"Rating": str(rating), "Rationale": RATIONALES[rating]}
        if aspect in ("helpfulness", "truthfulness"):
            table[aspect]["Type"] = ["None"] if rating > 3 else ["1"]
            table[aspect]["Rationale For Rating"] = RATIONALES[rating]
    return table


def _completion(model: str, response: str, true_ratings: list[int], rng: random.Random) -> JsonObject:
    """A response as the annotator sees it."""
    bias = PLEASANTRY_BIAS if any(phrase in response for phrase in OPENERS + CLOSERS) else 0.0
    ratings = [min(HIGHEST, max(LOWEST, round(true + rng.gauss(bias, NOISE)))) for true in true_ratings]
    fine_grained = sum(ratings) / len(ratings)
    overall = round((2 * fine_grained + rng.gauss(0, OVERALL_NOISE)) * 2) / 2
    principle = rng.choice(list(SYSTEM_PROMPTS))
    return {
        "model": model,
        "principle": principle,
        "custom_system_prompt": SYSTEM_PROMPTS[principle],
        "response": response,
        "annotations": _annotations(ratings),
        "critique": RATIONALES[round(fine_grained)],
        "fine-grained_score": fine_grained,
        "overall_score": min(10.0, max(1.0, overall)),
    }


def _row(source: str, instruction: str, completions: list[JsonObject]) -> JsonObject:
    return {
        "source": source,
        "instruction": instruction,
        "models": [completion["model"] for completion in completions],
        "completions": completions,
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }


def _task_row(instruction: str, rng: random.Random) -> JsonObject:
    task = INSTRUCTIONS[instruction]
    completions = []
    for model in rng.sample(list(MODELS), COMPLETIONS):
        weights = MODELS[model]
        response = respond(task, rng.choices(list(weights), list(weights.values()))[0], rng)
        completions.append(_completion(model, response, list(aspect_ratings(task, response).values()), rng))
    source = {"fact": "facts", "list": "lists", "polite": "tasks"}[task.group]
    return _row(source, instruction, completions)


def _foreign_rows(count: int, rng: random.Random) -> list[JsonObject]:
    """Rows whose instruction and answers are not English; the same instruction may come twice."""
    prompts = [
        (language, question, country)
        for language in LANGUAGES
        for question, country in itertools.product(language.questions, language.capitals)
    ]
    rng.shuffle(prompts)
    rows = []
    for language, question, country in itertools.islice(itertools.cycle(prompts), count):
        completions = []
        for model in rng.sample(list(MODELS), COMPLETIONS):
            right = rng.random() < 0.5
            city = language.capitals[country] if right else rng.choice(list(language.capitals.values()))
            ratings = [HIGHEST if right else 2] * len(ASPECTS)
            completions.append(_completion(model, language.answer.format(x=country, a=city), ratings, rng))
        rows.append(_row("foreign", question.format(x=country), completions))
    return rows


# Ways in which a duplicate differs from its original.
DUPLICATES: dict[str, Callable[[str], str]] = {
    "same": lambda text: text,
    "spaces": lambda text: "  " + text.replace(" ", "  ", 1) + " ",
    "lower": str.lower,
    "upper": str.upper,
    "no marks": lambda text: text.rstrip(".?"),
    "other marks": lambda text: text.rstrip(".?") + " !!",
}


def _set_ratings(completion: JsonObject, ratings: list[int]) -> None:
    completion["annotations"] = _annotations(ratings)
    completion["fine-grained_score"] = sum(ratings) / len(ratings)


def _praise_the_worst(row: JsonObject) -> None:
    """Upstream's known fault: an overall score of 10 where the ratings are low."""
    worst = min(row["completions"], key=lambda completion: completion["fine-grained_score"])
    _set_ratings(worst, [1, 2, 1, 2])
    worst["overall_score"] = 10.0


# Ways in which a row is broken; each changes the row in place.
MALFORMATIONS: dict[str, Callable[[JsonObject], None]] = {
    "empty instruction": lambda row: row.update(instruction=""),
    "blank instruction": lambda row: row.update(instruction=" \n "),
    "no completions": lambda row: row.update(models=[], completions=[]),
    "one completion": lambda row: row.update(models=row["models"][:1], completions=row["completions"][:1]),
    "empty response": lambda row: row["completions"][0].update(response=""),
    "rating not given": lambda row: row["completions"][1]["annotations"]["helpfulness"].update(Rating="N/A"),
    "null scores": lambda row: row["completions"][0].update({"overall_score": None, "fine-grained_score": None}),
    "praised worst": _praise_the_worst,
}


def _dirty_copies(rows: list[JsonObject], instructions: int, rng: random.Random) -> list[JsonObject]:
    """Duplicates and broken copies of rows; the rows themselves stay as they are."""
    copies = []
    duplicates = max(len(DUPLICATES), round(instructions * DUPLICATE_SHARE))
    for change in itertools.islice(itertools.cycle(DUPLICATES.values()), duplicates):
        row = copy.deepcopy(rng.choice(rows))
        row["instruction"] = change(row["instruction"])
        copies.append(row)
    malformed = max(len(MALFORMATIONS), round(instructions * MALFORMED_SHARE))
    for breaks in itertools.islice(itertools.cycle(MALFORMATIONS.values()), malformed):
        row = copy.deepcopy(rng.choice(rows))
        breaks(row)
        copies.append(row)
    return copies


def build_rows(instructions: int, seed: int) -> list[JsonObject]:
    """Raw rows for so many different instructions, plus dirt, shuffled; the same seed gives the same rows.

    A row has "source" ("facts", "lists", "tasks" or "foreign"), "instruction", "models", "completions",
    "correct_answers" and "incorrect_answers".  Ratings are strings from "1" to "5", "fine-grained_score" is
    their mean, "overall_score" goes from 1 to 10 in halves.  ValueError for less than one instruction or
    more than the grammar makes.
    """
    if not 1 <= instructions <= len(INSTRUCTIONS):
        raise ValueError(f"the demo has 1 to {len(INSTRUCTIONS)} instructions to give, {instructions} were asked for")
    rng = random.Random(seed)
    rows = [_task_row(instruction, rng) for instruction in rng.sample(sorted(INSTRUCTIONS), instructions)]
    foreign = _foreign_rows(max(1, round(instructions * FOREIGN_SHARE)), rng)
    rows += foreign + _dirty_copies(rows, instructions, rng)
    rng.shuffle(rows)
    return rows
