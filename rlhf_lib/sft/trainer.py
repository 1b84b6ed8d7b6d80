"""Supervised fine-tuning on prompts and answers, through TRL's SFTTrainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from trl import SFTConfig, SFTTrainer

from rlhf_lib.common import paths
from rlhf_lib.models import frozen
from rlhf_lib.models.chat import dialogue_and_start
from rlhf_lib.models.lengths import or_none
from rlhf_lib.models.loading import check_length, load_policy, load_tokenizer
from rlhf_lib.models.logprobs import Response, sequence_logprobs
from rlhf_lib.sft.data import IGNORED, encode
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import best, weights
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir
from rlhf_lib.training.quantization import quantization

COLUMNS = ("prompt", "completion")
FILES = tuple(paths.split(f"sft_{part}") for part in ("train", "validation"))


class UnpaddedSFTTrainer(training.Unpadded, SFTTrainer):
    """TRL's SFTTrainer, without padding. Its validation counts every token of an answer once, as `token_loss` does."""

    def count(self, name: str, inputs: dict[str, Any], rows: int) -> int:
        return int((inputs["labels"][:, 1:] != IGNORED).sum())


def build(
    params: SFTParams,
    model: str,
    train: Dataset,
    validation: Dataset,
    checkpoints: CheckpointDir,
    section: str = "sft",
    files: Sequence[str] = FILES,
) -> UnpaddedSFTTrainer:
    """A trainer of the model in directory `model`; the loss is on the answers' tokens alone.

    `train` and `validation` are rows of `COLUMNS`. Of those that are too long, see `Lengths`: without validation rows
    nothing is validated. What is wrong is told of the `section` of params.yaml, and of the two `files`.
    """
    policy = load_policy(model, **quantization(section, params))
    tokenizer = load_tokenizer(model)
    check_length(f"{section}.max_length", params.max_length, policy)
    (rows, lengths), (held_out, of_held_out) = (
        encode(part, tokenizer, params.max_length, file, section)
        for part, file in zip((train, validation), files, strict=True)
    )
    lengths.check_train()
    evaluated = or_none(held_out, of_held_out)
    if evaluated is None:
        best.check(section, params, files[1])
    config = SFTConfig(
        completion_only_loss=True,
        dataset_kwargs={"skip_prepare_dataset": True},
        **params.config(),
        **training.trl_kwargs(params, checkpoints, evaluated is not None),
    )
    set_seed(params.seed)  # adapters are drawn
    chosen = weights.choose(section, policy, params, "CAUSAL_LM")
    weights.hold_frozen(chosen)
    training.set_checkpointing(config, chosen, params.per_device_train_batch_size, params.max_length)
    trainer = UnpaddedSFTTrainer(
        model=chosen, args=config, train_dataset=rows, eval_dataset=evaluated, processing_class=tokenizer
    )
    trainer.keep_best(params)
    return trainer


def token_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    max_length: int,
    batch_size: int,
) -> float | None:
    """Mean negative log-prob (nats per token) of the rows' answers, cut at `max_length` tokens; None without any."""
    dialogues = (dialogue_and_start(tokenizer, row["prompt"], row["completion"][0]["content"]) for row in rows)
    kept = [(d[:start], Response(d[start:max_length], True)) for d, start in dialogues if start < max_length]
    prompts, responses = [p for p, _ in kept], [r for _, r in kept]
    pad_id = tokenizer.pad_token_id
    with frozen.autocast(model):
        found = sequence_logprobs(model, prompts, responses, pad_id, batch_size=batch_size, progress="Measuring")
    total = sum(found)
    return -total / sum(len(response.ids) for response in responses) if kept else None
