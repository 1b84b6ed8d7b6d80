"""The reward model: a Bradley-Terry model of the preference pairs, through TRL's RewardTrainer."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from rlhf_lib import scorers, training
from rlhf_lib.checkpoint import CheckpointDir
from rlhf_lib.comparison import order_accuracy
from rlhf_lib.models import check_length, load_tokenizer
from rlhf_lib.params.reward import RewardParams

COLUMNS = ("prompt", "chosen", "rejected")

Row = dict[str, Any]
Scorer = Callable[[Sequence[list[dict[str, str]]], Sequence[str]], list[float]]


def build(
    params: RewardParams, model: str, train: Dataset, validation: Dataset, checkpoints: CheckpointDir
) -> RewardTrainer:
    """A trainer of a one-output classifier on the trunk of the model in directory `model`.

    TRL drops the pairs that are longer than `max_length` tokens.
    """
    config = RewardConfig(remove_unused_columns=False, **params.config(), **training.trl_kwargs(checkpoints))
    trainer = RewardTrainer(
        model=model,
        args=config,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=load_tokenizer(model),
    )
    check_length("reward.max_length", params.max_length, trainer.model)
    return trainer


def reward_statistics(scorer: Scorer, pairs: Sequence[Row]) -> dict[str, float]:
    """Mean and standard deviation of the raw scores of the pairs' answers, by which rewards are normalised."""
    prompts = [pair["prompt"] for pair in pairs] * 2
    answers = [pair[key][0]["content"] for key in ("chosen", "rejected") for pair in pairs]
    scores = scorer(prompts, answers)
    return {"mean": statistics.fmean(scores), "std": max(statistics.pstdev(scores), 1e-6)}


def accuracies(scorer: Scorer, rows: Sequence[Row]) -> dict[str, float | int | None]:
    """How often the scorer orders two answers to one prompt as their scores do, and as their true quality does.

    `pairs` are those whose scores differ. `gold_accuracy` is there where the rows' source has a rule for quality.
    """
    predicted = score_rows(rows, scorer)
    accuracy, pairs = order_accuracy([[r["score"] for r in row["responses"]] for row in rows], predicted)
    measured: dict[str, float | int | None] = {"accuracy": accuracy, "pairs": pairs}
    if scorers.known(rows):
        measured["gold_accuracy"], measured["gold_pairs"] = order_accuracy(score_rows(rows, scorers.gold), predicted)
    return measured


def score_rows(rows: Sequence[Row], scorer: Scorer) -> list[list[float]]:
    """The scorer's scores of each row's responses, row by row."""
    prompts = [row["prompt"] for row in rows for _ in row["responses"]]
    contents = [response["content"] for row in rows for response in row["responses"]]
    scores = iter(scorer(prompts, contents))
    return [[next(scores) for _ in row["responses"]] for row in rows]
