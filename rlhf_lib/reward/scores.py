"""What a trained reward model says of answers: its statistics, and the rows of data/scores/<section>.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean, pstdev
from typing import Any, NamedTuple

from rlhf_lib.common.rows import JsonObject, Message, read_jsonl, some
from rlhf_lib.models.lengths import say
from rlhf_lib.reward import metrics
from rlhf_lib.reward.data import Splits
from rlhf_lib.reward.params import REGRESSION
from rlhf_lib.scoring import true_quality
from rlhf_lib.scoring.reward_model import RewardModel

MOST_PAIRS = 1000  # of training, for a mean and a standard deviation

Score = Callable[[Sequence[list[Message]], Sequence[str]], list[float]]


class Measured(NamedTuple):
    """What the stage writes of a trained model: reward_statistics.json, the rows of data/scores, and its numbers."""

    statistics: dict[str, Any]
    scores: list[JsonObject]
    summary: dict[str, Any]


def measure(
    model: RewardModel,
    kind: str,
    pairs: Sequence[JsonObject],
    groups: Sequence[JsonObject] | None,
    test: Sequence[JsonObject],
    target_range: Sequence[float],
) -> Measured:
    """Measure a model of a kind (`loss_type`) on validation pairs, validation groups (None: no `fitted_mse`) and the
    test rows. `target_range`: lowest and highest regression target."""
    score = partial(model.scores, progress="Scoring")
    statistics = reward_statistics(score, pairs)
    scores = scored_responses(test, score)
    summary = metrics.summary(scores, sum(target_range) / 2 if kind in REGRESSION else None)
    if groups is not None:
        summary["fitted_mse"] = metrics.fitted_mse(scored_responses(groups, score), scores)
    bounds = {"bounds": list(model.bounds)} if model.bounds else {}
    return Measured(statistics | bounds, scores, summary | statistics)


def measured_pairs(section: str, splits: Splits) -> list[JsonObject]:
    """The pairs whose answers give the mean and the spread of rewards: those of validation or, with a line, where there
    are none, some of training."""
    if held_out := read_jsonl(splits.validation):
        return held_out
    say(f"{section}: rewards are normalised by answers of the training rows: {splits.validation}: no rows")
    if pairs := some(read_jsonl(splits.train), MOST_PAIRS):
        return pairs
    groups = some(read_jsonl(splits.groups_train), MOST_PAIRS) if splits.groups_train else []
    # a regression learns from single answers too: each stands here as a pair with itself
    answers = [(group["prompt"], [answer]) for group in groups for answer in group["responses"]]
    return [{"prompt": prompt, "chosen": answer, "rejected": answer} for prompt, answer in answers]


def reward_statistics(score: Score, pairs: Sequence[JsonObject]) -> dict[str, float]:
    """Mean and standard deviation of the raw scores of the pairs' answers, by which rewards are normalised."""
    prompts = [pair["prompt"] for pair in pairs] * 2
    answers = [pair[key][0]["content"] for key in ("chosen", "rejected") for pair in pairs]
    scores = score(prompts, answers)
    return {"mean": fmean(scores), "std": max(pstdev(scores), 1e-6)}


def scored_responses(rows: Sequence[JsonObject], score: Score) -> list[JsonObject]:
    """A row of data/scores for each response: its score and target in the data, the reward model's score, and its true
    quality where its source has a rule for that."""
    answers = [
        (row, index, response)
        for row in rows
        for index, response in enumerate(row["responses"])
        if response["score"] is not None  # what the prompt's answers are compared with, and no more
    ]
    rewards = score([row["prompt"] for row, *_ in answers], [response["content"] for *_, response in answers])
    scored = []
    for (row, index, response), reward in zip(answers, rewards, strict=True):
        given = {"score": response["score"], "target": response["target"]}
        scored.append({"id": row["id"], "source": row["source"], "response": index, **given, "reward": reward})
        if true_quality.known([row]):
            scored[-1]["gold"] = true_quality.gold([row["prompt"]], [response["content"]])[0]
    return scored
