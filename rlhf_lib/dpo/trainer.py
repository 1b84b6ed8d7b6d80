"""Direct preference optimisation through TRL's DPOTrainer, on reference log-probs computed once."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from rlhf_lib.common.rows import JsonObject, read_jsonl
from rlhf_lib.dpo.data import encode
from rlhf_lib.dpo.params import DPOParams
from rlhf_lib.dpo.reference import PAIRS, REFERENCE_COLUMNS, SHARED_COLUMNS
from rlhf_lib.models.lengths import no_rows
from rlhf_lib.models.loading import load_policy, load_tokenizer
from rlhf_lib.training import best, referenced
from rlhf_lib.training.checkpoint import CheckpointDir
from rlhf_lib.training.dropout import disable_dropout
from rlhf_lib.training.quantization import quantization
from rlhf_lib.training.referenced import Referenced


class PrecomputedDPOTrainer(Referenced, DPOTrainer):
    """TRL's DPOTrainer without padding, on rows that are encoded already and bear reference log-probs."""


def with_reference(pairs: Dataset, path: str | Path, ld_alpha: float | None = None) -> Dataset:
    """The pairs that have reference log-probs in the JSON Lines file `path`, with them; log-probs of tokens beyond the
    length of a pair's shorter answer count `ld_alpha` times, as TRL counts those of the policy."""
    reference = {row["id"]: row for row in read_jsonl(path)}
    kept = pairs.select([i for i, key in enumerate(pairs["id"]) if key in reference])
    for column, of_shared in zip(REFERENCE_COLUMNS, SHARED_COLUMNS, strict=True):
        values = [reference[key][column] for key in kept["id"]]
        if ld_alpha is not None:
            shared = [reference[key][of_shared] for key in kept["id"]]
            values = [first + ld_alpha * (all_ - first) for first, all_ in zip(shared, values, strict=True)]
        kept = kept.add_column(column, values)
    return kept


def encoded(rows: Dataset, tokenizer: PreTrainedTokenizerBase, split: str) -> Dataset:
    """The rows of a split with the token ids that TRL's collator reads, which cuts them."""

    def encode_row(row: JsonObject, number: int) -> JsonObject:
        pair = encode(tokenizer, row, str(PAIRS[split]), number + 1)
        return {"prompt_ids": pair.prompt, "chosen_ids": pair.chosen, "rejected_ids": pair.rejected}

    return rows.map(encode_row, with_indices=True, desc="Encoding") if len(rows) else rows


def build(
    params: DPOParams, max_length: int, model: str, train: Dataset, validation: Dataset, checkpoints: CheckpointDir
) -> PrecomputedDPOTrainer:
    """A trainer of the model in directory `model`; `train` and `validation` come from `with_reference`.

    Without validation rows nothing is validated; a `ParamsError` where there is nothing to learn from.
    """
    if not len(train):
        raise no_rows(str(PAIRS["train"]))
    if not len(validation):
        best.check("dpo", params, str(PAIRS["validation"]))
    config = DPOConfig(
        max_length=max_length, **referenced.config_kwargs(params, checkpoints, validates=len(validation) > 0)
    )
    policy = load_policy(model, **quantization("dpo", params))
    tokenizer = load_tokenizer(model)
    disable_dropout(policy)
    rows, held_out = (encoded(part, tokenizer, split) for part, split in ((train, "train"), (validation, "validation")))
    size = 2 * params.per_device_train_batch_size, max_length
    return referenced.build(PrecomputedDPOTrainer, "dpo", params, config, policy, tokenizer, rows, held_out, size)
