"""Supervised fine-tuning from rows to the files of its stage: of sft, and of what learns from other rows as it does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from rlhf_lib.common import few, paths
from rlhf_lib.common.files import write_json
from rlhf_lib.common.policies import section
from rlhf_lib.common.rows import JsonObject
from rlhf_lib.models import loading as models
from rlhf_lib.sft import trainer as sft
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import trainer as training
from rlhf_lib.training import weights
from rlhf_lib.training.checkpoint import CheckpointDir


def train(
    stage: str,
    params: SFTParams,
    start: str,
    rows: Mapping[str, Sequence[JsonObject]],
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Train the model in directory `start` on rows of prompt and completion, and write what the stage writes.

    rows: by the name of their file, those to train on and those to validate on. more: numbers for the summary.
    """
    checkpoints, path, of_params = CheckpointDir(stage), paths.model(stage), section(stage)
    (learnt, held_out), files = rows.values(), list(rows)
    train, validation = (training.of_rows(part, sft.COLUMNS) for part in (learnt, held_out))
    trainer = sft.build(params, start, train, validation, checkpoints, of_params, files)
    log = training.run(trainer, checkpoints, of_params)
    load = partial(models.load_policy, start)
    if weights.export(trainer, of_params, params, "CAUSAL_LM", path, load) is None:
        return
    limits = params.max_length, params.per_device_eval_batch_size
    before, after = (
        sft.token_loss(loaded(), trainer.processing_class, held_out, *limits)  # one after the other: both take memory
        for loaded in (load, partial(models.load_policy, path))
    )
    summary = {"validation_loss_before": before, "validation_loss": after, "validation_perplexity": perplexity(after)}
    summary |= {"loss": training.last(log, "loss"), "rows": len(learnt), **training.summary(trainer, log), **more}
    write_json(paths.summary(stage), {stage: summary})
    print(f"{stage}: {len(learnt):,} rows; {told(before, after)}")
    few.tell(stage, validation=held_out)
    checkpoints.remove()


def perplexity(loss: float | None) -> float | None:
    """The exponential of a loss in nats per token."""
    return None if loss is None else math.exp(loss)


def told(before: float | None, after: float | None) -> str:
    """What the stage prints of its validation."""
    if before is None or after is None:
        return "no validation"
    return f"validation loss {before:.3f} before and {after:.3f} after (nats per token)"
