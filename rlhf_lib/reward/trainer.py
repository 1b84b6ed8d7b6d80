"""Training of the reward models of stages `reward` and `judge`."""

from __future__ import annotations

from typing import Any

from trl import RewardConfig, RewardTrainer

from rlhf_lib.models.lengths import or_none
from rlhf_lib.reward import base as reward_base
from rlhf_lib.reward.data import Splits, encoded
from rlhf_lib.reward.groups import GroupsTrainer
from rlhf_lib.reward.params import GROUPS, JudgeParams
from rlhf_lib.scoring.reward_model import Bounds
from rlhf_lib.training import best, weights
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir
from rlhf_lib.training.dropout import disable_dropout
from rlhf_lib.training.quantization import quantization


class UnpaddedRewardTrainer(training.Unpadded, RewardTrainer):
    """TRL's RewardTrainer, without padding."""


def build(
    section: str, params: JudgeParams, splits: Splits, bounds: Bounds | None, checkpoints: CheckpointDir
) -> training.Unpadded:
    """A trainer of a one-output classifier on the trunk of the model that the params name.

    Pairs of dialogues go to TRL's RewardTrainer; groups, and pairs of texts for an encoder, to `GroupsTrainer`. Pairs
    and answers that are longer than `max_length` tokens are dropped. Without validation rows nothing is validated.
    """
    scorer = reward_base.load(section, params, quantization(section, params), bounds)
    train, lengths = encoded(section, params, scorer, splits, "train")
    lengths.check_train()
    held_out, of_held_out = encoded(section, params, scorer, splits, "validation")
    validation = or_none(held_out, of_held_out)
    if validation is None:
        best.check(section, params, of_held_out.file)
    config = RewardConfig(
        remove_unused_columns=False,
        disable_dropout=False,  # it would be that of the adapters too
        **params.config(),
        **training.trl_kwargs(params, checkpoints, validation is not None),
    )
    disable_dropout(scorer.model)
    scorer.model = weights.choose(section, scorer.model, params, "SEQ_CLS")
    weights.hold_frozen(scorer.model)
    rows = 2 * params.per_device_train_batch_size
    training.set_checkpointing(config, scorer.model, rows, params.max_length)
    trainer: training.Unpadded
    if params.kind in GROUPS or scorer.tokenizer.chat_template is None:
        trainer = GroupsTrainer(scorer, params.kind, config, train, validation)
    else:
        trainer = UnpaddedRewardTrainer(
            model=scorer.model,
            args=config,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=scorer.tokenizer,
        )
    trainer.keep_best(params)
    return trainer


def of_training(kind: str, trainer: training.Unpadded, log: training.Log) -> dict[str, Any]:
    """The last loss, the validation accuracy of the model that is written, and how many rows were learnt from."""
    return {
        **training.summary(trainer, log),
        "loss": training.last(log, "loss"),
        **training.validation(trainer, log, "accuracy"),
        "train_groups" if kind in GROUPS else "train_pairs": len(trainer.train_dataset),
    }
