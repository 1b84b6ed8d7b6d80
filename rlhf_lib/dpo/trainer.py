"""Direct preference optimisation through TRL's DPOTrainer, on reference log-probs computed once."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from transformers import set_seed
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import disable_dropout_in_model

from rlhf_lib.common.rows import read_jsonl
from rlhf_lib.dpo.params import DPOParams
from rlhf_lib.dpo.reference import REFERENCE_COLUMNS
from rlhf_lib.models.loading import load_policy, load_tokenizer
from rlhf_lib.training import trainer as training
from rlhf_lib.training import weights
from rlhf_lib.training.checkpoint import CheckpointDir


class PrecomputedDPOTrainer(training.Unpadded, DPOTrainer):
    """TRL's DPOTrainer without padding, on rows that bear reference log-probs.

    TRL recomputes them in every run, so that a sweep over DPO's params would pay each time.
    """

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        return dataset


def with_reference(pairs: Dataset, path: str | Path) -> Dataset:
    """The pairs that have reference log-probs in the JSON Lines file `path`, with them."""
    reference = {row["id"]: row for row in read_jsonl(path)}
    kept = pairs.select([i for i, key in enumerate(pairs["id"]) if key in reference])
    for column in REFERENCE_COLUMNS:
        kept = kept.add_column(column, [reference[key][column] for key in kept["id"]])
    return kept


def build(
    params: DPOParams, max_length: int, model: str, train: Dataset, validation: Dataset, checkpoints: CheckpointDir
) -> DPOTrainer:
    """A trainer of the model in directory `model`; `train` and `validation` come from `with_reference`."""
    config = DPOConfig(
        max_length=max_length,
        precompute_ref_log_probs=True,
        remove_unused_columns=False,
        disable_dropout=False,  # it would be that of the adapters too
        **params.config(),
        **training.trl_kwargs(params, checkpoints),
    )
    policy = load_policy(model, **weights.quantization("dpo", params))
    disable_dropout_in_model(policy)
    set_seed(params.seed)  # adapters are drawn
    weights.freeze("dpo", policy, params.freeze)
    training.set_checkpointing(config, policy, 2 * params.per_device_train_batch_size, max_length)
    adapters = weights.lora_config(params, policy, "CAUSAL_LM")
    with weights.telling_of_lora("dpo", adapters):
        return PrecomputedDPOTrainer(
            model=policy,
            args=config,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=load_tokenizer(model),
            # handed over as an adapter on the model, it would be copied as the reference
            peft_config=adapters,
        )
