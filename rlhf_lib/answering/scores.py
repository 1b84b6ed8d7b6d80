"""Scores of answers: by named reward models and reward functions, and beside references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from rlhf_lib.answering import table
from rlhf_lib.answering.answers import Answer
from rlhf_lib.answering.prompts import Asked
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.measure import text_metrics
from rlhf_lib.measure.estimates import Estimate, mean_and_se
from rlhf_lib.ppo import arguments
from rlhf_lib.ppo.rewards import RewardFunction, RewardFunctions
from rlhf_lib.scoring.reward_model import RewardModel

OWN = (*table.ALWAYS, "draw", "id", "prompt_tokens_cut", "bleu", *text_metrics.ROUGE)
FEWEST = 5  # prompts below which a standard error is itself a guess, and is not shown
LONGEST_NGRAM = 4  # tokens, of BLEU

Row = dict[str, Any]  # of the file that is written, by its columns


@contextmanager
def _of_the_option() -> Iterator[None]:
    """A context in which what is said of `ppo.reward_funcs` is said of --scores."""
    try:
        yield
    except ParamsError as fault:
        raise ParamsError(str(fault).replace("params.yaml: ppo.reward_funcs", "--scores")) from None


def load(entries: Sequence[str], asked: Sequence[Asked], batch_size: int) -> RewardFunctions:
    """The reward models and functions that `ppo.reward_funcs` could name; a `ParamsError` where one cannot be had, or
    lacks a column.

    Models give what they give to PPO and to evaluate: rewards in standard deviations, where they have statistics.
    """
    with _of_the_option():
        functions = RewardFunctions.load(entries, None, True, batch_size)
        columns = _named(functions, asked)
        for name, function in functions.functions.items():
            needed = _arguments(function)[0]
            if lacking := [column for column in needed if column not in (*arguments.PASSED, *columns)]:
                raise ParamsError(f"--scores: {name} asks for {lacking[0]}, a column that the prompts' file has not")
        functions.check(columns)
    return functions


def score(functions: RewardFunctions, asked: Sequence[Asked], answers: Sequence[Answer]) -> dict[str, list[Any]]:
    """By its column, what each function gives to each answer, answers[i] to asked[i]; None where it gives none."""
    columns = {name: [one.columns.get(name) for one in asked] for name in _named(functions, asked)}
    columns["completion_ids"] = [answer.ids for answer in answers]
    texts = [answer.text for answer in answers]
    with _of_the_option():
        by_name = functions([one.prompt for one in asked], texts, columns).by_name
    return {f"{name}_score" if name in OWN else name: values for name, values in by_name.items()}


def _named(functions: RewardFunctions, asked: Sequence[Asked]) -> list[str]:
    """The columns of the prompts' file that a function has as an argument: others would be refused by some."""
    named = {name for function in functions.functions.values() for name in _arguments(function)[1]}
    return sorted({column for one in asked for column in one.columns if column in named})


def _arguments(function: RewardFunction) -> tuple[list[str], list[str]]:
    """The arguments that a function must have, and all that it names; none of a model."""
    asked = None if isinstance(function, RewardModel) else arguments.of_function(function)
    return (asked.needed, asked.named) if asked else ([], [])


def beside(answer: str, reference: str | None) -> tuple[Row, list[float] | None]:
    """Sentence BLEU (0 to 100) and ROUGE (0 to 1) of an answer, and the counts that make corpus BLEU; None of a prompt
    without a reference."""
    if reference is None:
        return dict.fromkeys(("bleu", *text_metrics.ROUGE)), None
    bleu, counts = text_metrics.bleu_counts(answer, reference)
    return {"bleu": bleu, **text_metrics.rouge(answer, reference)}, counts


def summary(rows: Sequence[Row], counts: Sequence[Sequence[float] | None]) -> list[str]:
    """Lines: how many answers there are, and the means of their numbers over prompts, with standard errors.

    counts: of each row, those of `beside`.
    """
    of_prompt: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        of_prompt.setdefault(row["row"], []).append(place)
    finished, given = sum(row["finished"] for row in rows), sum(row["reference"] is not None for row in rows)
    lines = [
        f"answers     {len(rows):,} to {len(of_prompt):,} prompts, {given:,} of them beside a reference",
        f"finished    {finished:,}; cut off {len(rows) - finished:,}",
    ]
    columns = [name for name in rows[0] if name not in OWN or name in ("tokens", "bleu", *text_metrics.ROUGE)]
    for name in columns:
        groups = [[v for place in places if (v := rows[place][name]) is not None] for places in of_prompt.values()]
        if means := [fmean(values) for values in groups if values]:
            lines.append(_line(name, mean_and_se(means), len(means), len(of_prompt)))
    sums = [
        [sum(of_column) for of_column in zip(*with_counts, strict=True)]
        for places in of_prompt.values()
        if (with_counts := [found for place in places if (found := counts[place]) is not None])
    ]
    return [*lines, _corpus_bleu(sums, len(of_prompt), counts)] if sums else lines


def _corpus_bleu(sums: Sequence[Sequence[float]], of: int, counts: Sequence[Sequence[float] | None]) -> str:
    """Its line: the number counts n-grams of the whole file, so texts without any of the longest do not show in it."""
    short = sum(min(found[:2]) < LONGEST_NGRAM for found in counts if found is not None)
    beside_one = sum(found is not None for found in counts)
    if short == beside_one:
        return f"corpus BLEU none: every answer or its reference is shorter than {LONGEST_NGRAM} tokens"
    line = _line("corpus BLEU", text_metrics.corpus_bleu(sums), len(sums), of)
    if 2 * short < beside_one:
        return line
    return f"{line}; {short:,} of {beside_one:,} answers or their references are shorter than {LONGEST_NGRAM} tokens"


def _line(name: str, estimate: Estimate, prompts: int, of: int) -> str:
    value, se = estimate
    error = "" if se is None or prompts < FEWEST else f" ± {se:.3g}"
    over = "" if prompts == of and prompts >= FEWEST else f" over {prompts:,} prompt{'s' if prompts > 1 else ''}"
    return f"{name:<11} {value:.4g}{error}{over}"
