"""Training of the reward models of stages `reward` and `judge`."""

from __future__ import annotations

from typing import Any

from transformers import Trainer
from trl import RewardConfig, RewardTrainer
from trl.trainer.utils import disable_dropout_in_model

from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.reward import base as reward_base
from rlhf_lib.reward.data import GROUPS, Splits, answer_groups, pairs
from rlhf_lib.reward.groups import GroupsTrainer, encode_groups
from rlhf_lib.reward.params import JudgeParams
from rlhf_lib.scoring.reward_model import Bounds
from rlhf_lib.training import trainer as training
from rlhf_lib.training import weights
from rlhf_lib.training.checkpoint import CheckpointDir


class UnpaddedRewardTrainer(training.Unpadded, RewardTrainer):
    """TRL's RewardTrainer, without padding."""


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
            encode_groups(rows, params.kind, scorer, params.max_length) for rows in answer_groups(params.kind, splits)
        )
        trainer = GroupsTrainer(scorer, params.kind, config, train, validation)
    for rows in (trainer.train_dataset, trainer.eval_dataset):
        if not len(rows):
            raise ParamsError(
                f"{PARAMS_FILE}: {section}.max_length: no row to learn from or to validate on is short enough, or has "
                f"answers of different scores, at {params.max_length} tokens; raise it"
            )
    return trainer


def run(trainer: Trainer, checkpoints: CheckpointDir) -> training.Log:
    """Train, and evaluate at least once: also in a run of fewer steps than `eval_steps`."""
    log = training.run(trainer, checkpoints)
    if not any("eval_loss" in entry for entry in log):
        trainer.evaluate()
    return log


def of_training(kind: str, trainer: Trainer, log: training.Log) -> dict[str, Any]:
    """The last loss and validation accuracy, and how many rows were learnt from."""
    return {
        "loss": training.last(log, "loss"),
        "validation_accuracy": training.last(log, "eval_accuracy"),
        "train_groups" if kind in GROUPS else "train_pairs": len(trainer.train_dataset),
    }
