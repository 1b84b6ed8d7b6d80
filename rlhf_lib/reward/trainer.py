"""The reward models of stages `reward` and `judge`: what they are trained on, how, and what is measured of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import Trainer
from trl import RewardConfig, RewardTrainer
from trl.trainer.utils import disable_dropout_in_model

from rlhf_lib.common.files import write_json
from rlhf_lib.common.rows import read_jsonl, write_jsonl
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.reward import base as reward_base
from rlhf_lib.reward import metrics as reward_metrics
from rlhf_lib.reward.groups import GroupsTrainer, encode_groups
from rlhf_lib.reward.params import REGRESSION, JudgeParams
from rlhf_lib.scoring import true_quality
from rlhf_lib.scoring.reward_model import STATISTICS_FILE, Bounds, RewardModel
from rlhf_lib.training import trainer as training
from rlhf_lib.training import weights
from rlhf_lib.training.checkpoint import CheckpointDir

COLUMNS = ("prompt", "chosen", "rejected")
GROUPS = ("ranking", *REGRESSION)  # the kinds that learn from all answers of a prompt
TEST = "data/splits/test.jsonl"

Row = dict[str, Any]
Scorer = Callable[[Sequence[list[dict[str, str]]], Sequence[str]], list[float]]


class Splits(NamedTuple):
    """Files to learn from: pairs, and each prompt's scored answers, without which there are no kinds that need them."""

    train: str
    validation: str
    groups_train: str | None = None
    groups_validation: str | None = None


class UnpaddedRewardTrainer(training.Unpadded, RewardTrainer):
    """TRL's RewardTrainer, without padding."""


def run(section: str, params: JudgeParams, splits: Splits, target_range: Sequence[float] = (0.0, 1.0)) -> None:
    """A whole stage: train the model of params section `section` and write everything that dvc.yaml says it writes.

    `target_range`: lowest and highest regression target.
    """
    low, high = target_range
    bounds = (low, high) if params.is_bounded else None
    checkpoints = CheckpointDir(section)
    trainer = build(section, params, splits, bounds, checkpoints)
    log = training.run(trainer, checkpoints)
    if not any("eval_loss" in entry for entry in log):
        trainer.evaluate()  # of a run of fewer steps than eval_steps
    plain = weights.export(
        trainer, section, params, "SEQ_CLS", f"models/{section}", lambda: reward_base.load(section, params, {}).model
    )
    if plain is None:
        return
    scorer = RewardModel(plain, trainer.processing_class, bounds=bounds)
    measured = reward_statistics(scorer.scores, read_jsonl(splits.validation))
    write_json(Path("models") / section / STATISTICS_FILE, measured | ({"bounds": list(bounds)} if bounds else {}))
    training.write_curves(section, log)
    scores = scored_responses(read_jsonl(TEST), scorer.scores)
    write_jsonl(f"data/scores/{section}.jsonl", scores)
    summary = reward_metrics.summary(scores, (low + high) / 2 if params.kind in REGRESSION else None)
    if splits.groups_validation:
        fitted_on = scored_responses(read_jsonl(splits.groups_validation), scorer.scores)
        summary["fitted_mse"] = reward_metrics.fitted_mse(fitted_on, scores)
    write_json(
        f"metrics/{section}/summary.json", {section: summary | measured | of_training(params.kind, trainer, log)}
    )
    checkpoints.remove()


def build(
    section: str, params: JudgeParams, splits: Splits, bounds: Bounds | None, checkpoints: CheckpointDir
) -> Trainer:
    """A trainer of a one-output classifier on the trunk of the model that the params name.

    Pairs of dialogues go to TRL's RewardTrainer; groups, and pairs of texts for an encoder, to `GroupsTrainer`. Pairs
    and answers that are longer than `max_length` tokens are dropped.
    """
    scorer = reward_base.load(section, params, weights.quantization(section, params), bounds)
    config = RewardConfig(
        remove_unused_columns=False,
        disable_dropout=False,  # it would be that of the adapters too
        **params.config(),
        **training.trl_kwargs(params, checkpoints),
    )
    disable_dropout_in_model(scorer.model)
    scorer.model = weights.choose(section, scorer.model, params, "SEQ_CLS")
    rows = 2 * params.per_device_train_batch_size
    training.set_checkpointing(config, scorer.model, rows, params.max_length)
    trainer: Trainer
    if params.kind not in GROUPS and scorer.tokenizer.chat_template is not None:
        train, validation = (pairs(path, params.kind) for path in (splits.train, splits.validation))
        trainer = UnpaddedRewardTrainer(
            model=scorer.model,
            args=config,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=scorer.tokenizer,
        )
    else:
        train, validation = (
            encode_groups(rows, params.kind, scorer, params.max_length) for rows in _groups(params.kind, splits)
        )
        trainer = GroupsTrainer(scorer, params.kind, config, train, validation)
    for rows in (trainer.train_dataset, trainer.eval_dataset):
        if not len(rows):
            raise ParamsError(
                f"{PARAMS_FILE}: {section}.max_length: no row to learn from or to validate on is short enough, or has "
                f"answers of different scores, at {params.max_length} tokens; raise it"
            )
    return trainer


def _groups(kind: str, splits: Splits) -> Iterator[Dataset]:
    """What `encode_groups` wants, of the training and of the validation rows."""
    if kind not in GROUPS:
        yield from (text_pairs(pairs(path, kind)) for path in (splits.train, splits.validation))
        return
    for path in (splits.groups_train, splits.groups_validation):
        if path is None:
            raise ValueError(f"{kind}: no groups to learn from")
        yield groups(path, kind)


def pairs(path: str, kind: str) -> Dataset:
    """The preference pairs in a file, with a `margin` if the kind is margin: the difference of their scores.

    The margin is in the units of the pair's source. Of an answer without a score, such as one that a model wrote, only
    the order is known: its margin is 0.
    """
    scores = ("score_chosen", "score_rejected")
    rows = training.dataset(path, (*COLUMNS, *(scores if kind == "margin" else ())))
    if not len(rows):
        raise _no_rows(path)
    if kind != "margin":
        return rows
    both = zip(*(rows[key] for key in scores), strict=True)
    margins = [0.0 if None in (chosen, rejected) else float(chosen - rejected) for chosen, rejected in both]
    return rows.remove_columns(list(scores)).add_column("margin", margins)


def text_pairs(rows: Dataset) -> Dataset:
    """Pairs as groups of two answers, the chosen one first."""
    return Dataset.from_dict(
        {
            "prompt": rows["prompt"],
            "contents": [[row[key][0]["content"] for key in ("chosen", "rejected")] for row in rows],
            "values": [[1.0, 0.0]] * len(rows),
            "margin": rows["margin"] if "margin" in rows.column_names else [0.0] * len(rows),
        }
    )


def groups(path: str, kind: str) -> Dataset:
    """The prompts in a file with all their answers and their scores, or their targets if the kind is a regression."""
    rows, value = read_jsonl(path), "target" if kind in REGRESSION else "score"
    if not rows:
        raise _no_rows(path)
    return Dataset.from_dict(
        {
            "prompt": [row["prompt"] for row in rows],
            "contents": [[response["content"] for response in row["responses"]] for row in rows],
            "values": [[response[value] for response in row["responses"]] for row in rows],
            "margin": [0.0] * len(rows),
        }
    )


def _no_rows(path: str) -> ParamsError:
    return ParamsError(f"{path}: no rows; load more, or change the shares of prepare in {PARAMS_FILE}")


def of_training(kind: str, trainer: Trainer, log: training.Log) -> Row:
    """The last loss and validation accuracy, and how many rows were learnt from."""
    return {
        "loss": training.last(log, "loss"),
        "validation_accuracy": training.last(log, "eval_accuracy"),
        "train_groups" if kind in GROUPS else "train_pairs": len(trainer.train_dataset),
    }


def reward_statistics(scorer: Scorer, pairs: Sequence[Row]) -> dict[str, float]:
    """Mean and standard deviation of the raw scores of the pairs' answers, by which rewards are normalised."""
    prompts = [pair["prompt"] for pair in pairs] * 2
    answers = [pair[key][0]["content"] for key in ("chosen", "rejected") for pair in pairs]
    scores = scorer(prompts, answers)
    return {"mean": statistics.fmean(scores), "std": max(statistics.pstdev(scores), 1e-6)}


def scored_responses(rows: Sequence[Row], scorer: Scorer) -> list[Row]:
    """A row of data/scores for each response: its score and target in the data, the scorer's reward, and its true
    quality where its source has a rule for that."""
    answers = [(row, index, response) for row in rows for index, response in enumerate(row["responses"])]
    rewards = scorer([row["prompt"] for row, *_ in answers], [response["content"] for *_, response in answers])
    scored = []
    for (row, index, response), reward in zip(answers, rewards, strict=True):
        given = {"score": response["score"], "target": response["target"]}
        scored.append({"id": row["id"], "source": row["source"], "response": index, **given, "reward": reward})
        if true_quality.known([row]):
            scored[-1]["gold"] = true_quality.gold([row["prompt"]], [response["content"]])[0]
    return scored
