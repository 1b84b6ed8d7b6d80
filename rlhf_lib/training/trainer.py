"""What the stages that train share: arguments, batches, resume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from torch import Tensor
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from rlhf_lib.common.chunks import chunks
from rlhf_lib.common.policies import section
from rlhf_lib.common.rows import JsonObject, read_jsonl
from rlhf_lib.models import hardware, heap
from rlhf_lib.models.layers import base_model
from rlhf_lib.models.lengths import say
from rlhf_lib.models.seeds import seeded
from rlhf_lib.models.unpadded import skip_padding
from rlhf_lib.training import best, curves, guard, memory, optimizer_check, sharding, tracking, unlogged, weights
from rlhf_lib.training.checkpoint import CheckpointDir
from rlhf_lib.training.curves import Log
from rlhf_lib.training.params import TrainerParams
from rlhf_lib.training.sealing import SealedCheckpoints
from rlhf_lib.training.throughput import LOGGED, Throughput
from rlhf_lib.training.validating import Validating
from rlhf_lib.training.weights import Model

FEW_ROWS = 10_000  # which TRL encodes in seconds


def trainer_kwargs(checkpoints: CheckpointDir) -> dict[str, Any]:
    """Arguments of every trainer's config that are no params."""
    sharding.refuse_others()
    return {
        "output_dir": str(checkpoints.path),
        "save_strategy": "steps",
        "report_to": "none",
        "logging_nan_inf_filter": False,  # it would log the loss before in place of one that is not finite
        # Every parameter takes part in every step, also behind the models' own forwards.
        "ddp_find_unused_parameters": False,
        **hardware.trainer_kwargs(),
    }


def trl_kwargs(params: TrainerParams, checkpoints: CheckpointDir, validates: bool = True) -> dict[str, Any]:
    """`trainer_kwargs` and what the configs of TRL's trainers have in common beside the params' own `config()`.

    validates: whether there are rows to validate on.
    """
    return {
        **trainer_kwargs(checkpoints),
        "eval_strategy": params.eval_strategy if validates else "no",
    }


def wants_checkpointing(model: Model, rows: int, max_length: int) -> bool:
    """Whether activations of `rows` rows of `max_length` tokens are computed again in the backward pass, not kept: as
    `compute.gradient_checkpointing` says, or else where they would fill more than half of a GPU's memory."""
    chosen = hardware.gradient_checkpointing()
    if chosen is None and hardware.device().type == "cuda":
        compute = memory.Compute(hardware.number_bytes(), keeps_scores=False, few_calls=True)
        batch = memory.ForwardPass(rows, max_length, rows * max_length)
        chosen = memory.wants_checkpointing(memory.shape(model), batch, compute, torch.cuda.mem_get_info()[1])
    return bool(chosen)


def set_checkpointing(config: TrainingArguments, model: Model, rows: int, max_length: int) -> None:
    """Let a trainer's model compute activations again where `wants_checkpointing` says so."""
    wanted = wants_checkpointing(model, rows, max_length)
    # TRL and peft read the first, which transformers keeps until it is removed
    config.gradient_checkpointing = config.activation_checkpointing = wanted
    settle_heap(wanted)


def settle_heap(checkpointing: bool) -> None:
    """Let memory go before time, or time before memory, on a CPU too, whose tensors are in the heap."""
    if checkpointing:
        heap.return_blocks()
    elif hardware.device().type == "cpu":
        heap.keep_blocks()


class EpochOrder(Sampler[int]):
    """The order of `lengths`' rows in each pass: a function of seed and pass alone, so that a resumed run, and any
    number of processes, see the same batches.

    With `grouped`, batches of `batch_size` rows (those of an optimizer step) hold rows of similar length: of every
    `_POOL` random batches the rows are sorted, and the batches that come of it shuffled.
    """

    _POOL = 50

    def __init__(self, lengths: Sequence[int], batch_size: int, grouped: bool, seed: int) -> None:
        self.lengths, self.batch_size, self.grouped, self.seed = lengths, batch_size, grouped, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = seeded("order", self.seed, self.epoch)
        order = torch.randperm(len(self), generator=generator).tolist()
        if not self.grouped:
            return iter(order)
        pool = self._POOL * self.batch_size
        rows = [row for part in chunks(order, pool) for row in sorted(part, key=lambda row: self.lengths[row])]
        batches = list(chunks(rows, self.batch_size))
        short = [batches.pop()] if len(batches[-1]) < self.batch_size else []  # stays last: the others keep their rows
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return iter([row for batch in [*(batches[i] for i in shuffled), *short] for row in batch])


class Unpadded(Validating):
    """A trainer whose model computes nothing on padding, and whose batches are `EpochOrder`'s; a base of others."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # In a mixture of experts TRL would add how unevenly they are used: to DPO's ln 2, and of padded batches alone.
        self.aux_loss_enabled = False
        config = base_model(self.model).config.get_text_config()
        if hasattr(config, "output_router_logits"):
            config.output_router_logits = False
        # DPO weights pairs by the policy's squared probabilities
        skip_padding(base_model(self.model), squares=getattr(self, "use_weighting", False))
        self.throughput = Throughput()
        self.add_callback(self.throughput)

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        self.throughput.count(inputs)
        return super().training_step(model, inputs, *args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and (speed := self.throughput.take(self.args.world_size)) is not None:
            logs[LOGGED] = speed
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> EpochOrder:
        args = self.args
        batch_size = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        # The argument is the same rows, without this column.
        return EpochOrder(
            self.train_dataset["length"][:], batch_size, args.train_sampling_strategy == "group_by_length", args.seed
        )


def dataset(path: str | Path, columns: tuple[str, ...]) -> Dataset:
    """`of_rows` of a JSON Lines file."""
    return of_rows(read_jsonl(path), columns)


def of_rows(rows: Sequence[JsonObject], columns: tuple[str, ...]) -> Dataset:
    """The named columns of rows, and `length` in characters, by which batches can be grouped.

    Only the columns that a trainer reads: TRL would guess a row's format from the others.
    """
    if len(rows) < FEW_ROWS:
        disable_progress_bars()  # four flash by for each split
    lengths = [
        sum(len(message["content"]) for key in columns if isinstance(row[key], list) for message in row[key])
        for row in rows
    ]
    if not rows:
        return Dataset.from_dict({key: [] for key in (*columns, "length")})
    return Dataset.from_list(
        [{**{key: row[key] for key in columns}, "length": n} for row, n in zip(rows, lengths, strict=True)]
    )


class _LogOfAShortRun(TrainerCallback):
    """Logs a run of fewer steps than `logging_steps` once, at its end: without a loss it would have no curve."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if args.logging_strategy == "steps" and state.global_step == state.max_steps < state.logging_steps:
            control.should_log = True


def run(trainer: SealedCheckpoints, checkpoints: CheckpointDir, stage: str = "trainer") -> Log:
    """Train from the newest checkpoint of the same inputs, if any, write the curves, and return the whole log.

    What there are validation rows for is evaluated at least once, also in a run of fewer steps than `eval_steps`. A
    training that diverges ends in a `ParamsError`, and leaves no checkpoint.
    """
    sharding.check(trainer)
    optimizer_check.check(section(checkpoints.stage), trainer.args, trainer.model)
    latest = checkpoints.latest()
    if latest:
        say(f"resuming from {latest}")
    trainer.add_callback(optimizer_check.Decay(section(checkpoints.stage)))
    trainer.add_callback(_LogOfAShortRun())
    trainer.add_callback(guard.Divergence(stage, trainer))
    trainer.add_callback(best.SaveAfterEvaluation())
    trainer.add_callback(unlogged.Resume(trainer, latest))
    if (number := trainer.args.process_index) > 0:
        set_seed(trainer.args.seed + number)  # dropout would else leave the same places out in every process
    trainer.counts = weights.counts(trainer.model)
    say(f"{stage}: {trainer.counts.trained:,} of {trainer.counts.all:,} parameters are trained")
    with (
        curves.growing(trainer, checkpoints.stage),
        guard.leaving_no_checkpoint(trainer, checkpoints),
        tracking.reporting(trainer, checkpoints),
    ):
        trainer.train(resume_from_checkpoint=latest)
        log = trainer.state.log_history
        if trainer.args.eval_strategy != "no" and not any(key.startswith("eval_") for entry in log for key in entry):
            trainer.evaluate()
    for line in best.told(trainer):
        say(f"{stage}: {line}")
    return log


def summary(trainer: SealedCheckpoints, log: Log, count: str = "epoch") -> dict[str, float | int | bool | None]:
    """What the summary of every stage that trains has: how many weights were trained, and `best.summary`."""
    sizes = {"parameters": trainer.counts.all, "trainable_parameters": trainer.counts.trained}
    return {**sizes, **best.summary(trainer, log, count)}


def validation(trainer: SealedCheckpoints, log: Log, *keys: str) -> dict[str, float | None]:
    """`validation_<key>` of what was last logged as `eval_<key>` of the model that is written, with _ for /; None
    where there are no validation rows."""
    exported = best.until(trainer, log)
    return {f"validation_{key.replace('/', '_')}": last_or_none(exported, f"eval_{key}") for key in keys}


def last(log: Log, key: str) -> float:
    """The last value logged under `key`; KeyError if there is none."""
    for entry in reversed(log):
        if key in entry:
            return entry[key]
    raise KeyError(key)


def last_or_none(log: Log, key: str) -> float | None:
    """The last value logged under `key`; None where nothing was, as of a validation without rows."""
    return next((entry[key] for entry in reversed(log) if key in entry), None)
