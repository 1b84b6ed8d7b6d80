"""Direct preference optimisation through TRL's DPOTrainer, on reference log-probs computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import disable_dropout_in_model

from rlhf_lib import hardware, training, weights
from rlhf_lib.checkpoint import CheckpointDir
from rlhf_lib.logprobs import Distribution, Response, sequence_logprobs
from rlhf_lib.models import check_length, load_policy, load_tokenizer
from rlhf_lib.params.dpo import DPOParams
from rlhf_lib.processes import shared_out
from rlhf_lib.rows import read_jsonl

COLUMNS = ("id", "prompt", "chosen", "rejected")
PAIRS = {"train": "data/negatives/preference_train.jsonl", "validation": "data/splits/preference_validation.jsonl"}
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")


class PrecomputedDPOTrainer(training.Unpadded, DPOTrainer):
    """TRL's DPOTrainer without padding; and rows that already bear reference log-probs keep them.

    TRL computes them anew in every run; a sweep over DPO's params would pay for them each time.
    """

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        if set(REFERENCE_COLUMNS) <= set(dataset.column_names):
            return dataset
        for answer, column in zip(("chosen", "rejected"), REFERENCE_COLUMNS, strict=True):
            dataset = dataset.add_column(column, self._logprobs(dataset, f"{answer}_ids", batch_size))
        return dataset

    @torch.no_grad()
    def _logprobs(self, dataset: Dataset, answer: str, batch_size: int) -> list[float]:
        """The summed log-probs (nats) of one answer of each row, cut at `max_length` as TRL's collator cuts it."""
        prompts, answers = dataset["prompt_ids"], dataset[answer]
        responses = [
            Response(ids[: self.args.max_length - len(prompt)], True)
            for prompt, ids in zip(prompts, answers, strict=True)
        ]
        pad_id = self.processing_class.pad_token_id
        with self.accelerator.autocast():
            return shared_out(
                list(zip(prompts, responses, strict=True)),
                lambda part: sequence_logprobs(
                    self.model, [p for p, _ in part], [r for _, r in part], pad_id, Distribution(1.0), batch_size
                ),
            )


def reference_logprobs(
    model: str, pairs: Dataset, max_length: int, scratch: str, batch_size: int = 64
) -> list[dict[str, Any]]:
    """The summed log-probs (nats) of each pair's answers under the model in directory `model`, as DPO computes them.

    Pairs whose prompt alone fills `max_length` tokens are left out, as they are in DPO.
    """
    config = DPOConfig(
        output_dir=scratch,
        max_length=max_length,
        precompute_ref_log_probs=True,
        precompute_ref_batch_size=batch_size,
        report_to="none",
        **hardware.trainer_kwargs(),
    )
    policy = load_policy(model)
    check_length("reference.max_length", max_length, policy)
    trainer = PrecomputedDPOTrainer(
        model=policy, args=config, train_dataset=pairs, processing_class=load_tokenizer(model)
    )
    return [{key: row[key] for key in ("id", *REFERENCE_COLUMNS)} for row in trainer.train_dataset]


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
    weights.freeze("dpo", policy, params.freeze)
    with weights.telling_of_lora("dpo"):
        return PrecomputedDPOTrainer(
            model=policy,
            args=config,
            train_dataset=train,
            eval_dataset=validation,
            processing_class=load_tokenizer(model),
            # handed over as an adapter on the model, it would be copied as the reference
            peft_config=weights.lora_config(params, policy, "CAUSAL_LM"),
        )
