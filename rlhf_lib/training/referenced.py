"""What trainers on rows with reference log-probs share, TRL's DPOTrainer and KTOTrainer: no second model is held."""

from __future__ import annotations

from typing import Any, TypeVar

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments, set_seed

from rlhf_lib.training import trainer as training
from rlhf_lib.training import weights
from rlhf_lib.training.adapters import check_targets
from rlhf_lib.training.checkpoint import CheckpointDir
from rlhf_lib.training.params import TrainerParams


class Referenced(training.Unpadded):
    """A trainer on rows that are encoded already, and bear reference log-probs; a base of others, before TRL's.

    TRL computes them anew in every run, so that a sweep would pay each time.
    """

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        return dataset


Kind = TypeVar("Kind", bound=Referenced)


def config_kwargs(params: TrainerParams, checkpoints: CheckpointDir, validates: bool) -> dict[str, Any]:
    """Arguments of such a trainer's config; validates: whether there are rows to validate on."""
    return {
        "precompute_ref_log_probs": True,
        "remove_unused_columns": False,
        "disable_dropout": False,  # it would be that of the adapters too
        **params.config(),
        **training.trl_kwargs(params, checkpoints, validates),
    }


def build(
    kind: type[Kind],
    section: str,
    params: TrainerParams,
    config: TrainingArguments,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    held_out: Dataset,
    size: tuple[int, int],
) -> Kind:
    """A trainer of that kind, of the weights that the params of `section` train.

    size: the sequences of a forward pass, and their length in tokens. Without rows in `held_out` nothing is validated.
    """
    set_seed(params.seed)  # adapters are drawn
    weights.freeze(section, policy, params.freeze)
    training.set_checkpointing(config, policy, *size)
    adapters = weights.lora_config(params, policy, "CAUSAL_LM")
    if adapters is not None:
        check_targets(section, policy, adapters)
    with weights.telling_of_lora(section, adapters):
        trainer = kind(
            model=policy,
            args=config,
            train_dataset=rows,
            eval_dataset=held_out if len(held_out) else None,
            processing_class=tokenizer,
            # handed over as an adapter on the model, it would be copied as the reference
            peft_config=adapters,
        )
    weights.hold_frozen(trainer.model, tables=False)  # as where the reference log-probs were computed
    trainer.keep_best(params)
    return trainer
