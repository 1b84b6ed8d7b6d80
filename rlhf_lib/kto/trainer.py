"""Kahneman-Tversky optimisation through TRL's KTOTrainer, on reference log-probs computed once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import KTOConfig, KTOTrainer

from rlhf_lib.common.chunks import chunks, work_through
from rlhf_lib.common.rows import JsonObject
from rlhf_lib.kto.data import FILES, BatchOrder, Thumb, encoded, evenly, in_batches, mismatched
from rlhf_lib.kto.params import KTOParams
from rlhf_lib.models import hardware
from rlhf_lib.models.loading import check_length, load_policy, load_tokenizer
from rlhf_lib.models.logprobs import Response, rows_at_once, sequence_logprobs
from rlhf_lib.models.processes import shared_out
from rlhf_lib.training import best, referenced
from rlhf_lib.training.checkpoint import CheckpointDir
from rlhf_lib.training.dropout import disable_dropout
from rlhf_lib.training.quantization import quantization
from rlhf_lib.training.referenced import Referenced


class PrecomputedKTOTrainer(Referenced, KTOTrainer):
    """TRL's KTOTrainer without padding, on rows that are encoded already and bear reference log-probs.

    TRL would shuffle nothing between two passes, since the answers by which the KL is estimated belong to a batch.
    """

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> BatchOrder:
        rows, args = self.train_dataset, self.args
        return BatchOrder([0] * len(rows), args.per_device_train_batch_size, False, args.seed)

    def count(self, name: str, inputs: dict[str, Any], rows: int) -> int:
        """Rewards and log-probs are means over the good rows of a batch, or the bad ones."""
        good = int(inputs["label"].sum())
        return {"chosen": good, "rejected": rows - good}.get(name.partition("/")[2], rows)

    def means(self) -> dict[str, float]:
        """The margin is what good rows have more than bad ones: TRL's is of the batches that have both."""
        means, margin = super().means(), "rewards/margins"
        means.pop(margin, None)
        if "rewards/chosen" in means and "rewards/rejected" in means:
            means[margin] = means["rewards/chosen"] - means["rewards/rejected"]
        return means


def with_reference(
    policy: PreTrainedModel, pad_id: int, thumbs: Sequence[Thumb], params: KTOParams, batch_size: int, file: Path
) -> Dataset:
    """The rows as TRL's collator reads them: the answers, and where the loss estimates the KL those of other prompts,
    with their summed log-probs (nats) under the policy. `file` gets these as they come; those that a killed run with
    the same arguments left there are kept. Every process must call this."""
    columns: JsonObject = {
        "prompt_ids": [thumb.prompt for thumb in thumbs],
        "completion_ids": [thumb.completion for thumb in thumbs],
        "label": [thumb.label for thumb in thumbs],
    }
    answers = {"ref_logps": columns["completion_ids"]}
    if params.estimates_kl:
        others = mismatched(thumbs, batch_size)
        cut = [other[: params.max_length - len(t.prompt)] for t, other in zip(thumbs, others, strict=True)]
        columns["KL_completion_ids"] = answers["ref_KL_logps"] = cut
    size = params.precompute_ref_batch_size

    def measure(part: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        prompts, responses = [prompt for prompt, _ in part], [Response(answer, True) for _, answer in part]
        return sequence_logprobs(policy, prompts, responses, pad_id, batch_size=size, progress="Forward passes")

    def work(rows: Sequence[int]) -> list[list[float]]:
        """The log-probs of each row's answers."""
        read = [(thumbs[row].prompt, ids[row]) for row in rows for ids in answers.values()]
        return list(chunks(shared_out(read, measure), len(answers)))

    order = sorted(range(len(thumbs)), key=lambda row: thumbs[row].prompt)  # a prompt is read once in a chunk
    with hardware.autocast():
        found = work_through(order, rows_at_once(size), work, file, "Reference", "answer")
    of_row = dict(zip(order, found, strict=True))
    columns |= {name: [of_row[row][place] for row in range(len(thumbs))] for place, name in enumerate(answers)}
    return Dataset.from_dict(columns)


def datasets(
    params: KTOParams,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    validation: Dataset,
    saved: Path,
) -> tuple[Dataset, Dataset]:
    """What the trainer learns from, in the order of its batches, and what it validates on. The reference's log-probs go
    to the folder `saved` as they come."""
    rows = encoded(train, tokenizer, params.max_length, "train")
    held_out = encoded(validation, tokenizer, params.max_length, "validation")
    sizes = params.per_device_train_batch_size, params.per_device_eval_batch_size
    grouped = params.train_sampling_strategy == "group_by_length"
    ordered = in_batches(rows, sizes[0], grouped, params.seed), evenly(held_out)
    pad_id = tokenizer.pad_token_id
    learnt, validated = (
        with_reference(policy, pad_id, part, params, size, saved / f"reference_{name}.jsonl")
        for name, part, size in zip(FILES, ordered, sizes, strict=True)
    )
    return learnt, validated


def build(
    params: KTOParams, model: str, train: Dataset, validation: Dataset, checkpoints: CheckpointDir
) -> PrecomputedKTOTrainer:
    """A trainer of the model in directory `model` on rows with `data.COLUMNS`.

    Without validation rows nothing is validated; a `ParamsError` where there is nothing to learn from.
    """
    policy = load_policy(model, **quantization("kto", params))
    check_length("kto.max_length", params.max_length, policy)
    tokenizer = load_tokenizer(model)
    disable_dropout(policy)
    # before the policy has adapters, and TRL's forward
    rows, held_out = datasets(params, policy, tokenizer, train, validation, checkpoints.path)
    if not len(held_out):
        best.check("kto", params, FILES["validation"])
    config = KTOConfig(**referenced.config_kwargs(params, checkpoints, validates=len(held_out) > 0))
    size = params.per_device_train_batch_size, params.max_length
    return referenced.build(PrecomputedKTOTrainer, "kto", params, config, policy, tokenizer, rows, held_out, size)
