"""How many tokens a trainer learns from in a second: shown in its log, never in what it writes."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

LOGGED = "tokens_per_second"  # curves leave out what ends so


class Throughput(TrainerCallback):
    """Counts tokens, and the seconds in which they were learnt from: evaluations and checkpoints take none of them.

    Tokens stay on the device until they are asked for: to fetch each count would wait for it at every batch.
    """

    def __init__(self) -> None:
        self._tokens: list[Tensor] = []
        self._since = self._step_end = time.perf_counter()
        self._apart = 0.0  # seconds since `_since` that went into something else
        self.tokens = 0.0  # of all that was taken

    def count(self, inputs: dict[str, Any]) -> None:
        """Count the tokens, without padding, of a batch."""
        if isinstance(mask := inputs.get("attention_mask"), Tensor):
            self._tokens.append(mask.sum())

    def take(self, processes: int = 1) -> float | None:
        """Tokens a second since the last call, of all processes, which have like batches; None where none was
        counted."""
        if not self._tokens:
            return None
        tokens = processes * float(torch.stack(self._tokens).sum())
        now = time.perf_counter()
        seconds = now - self._since - self._apart
        self._tokens.clear()
        self._since, self._apart = now, 0.0
        self.tokens += tokens
        return tokens / seconds

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._since = self._step_end = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._step_end = time.perf_counter()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._step_end = time.perf_counter()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._leave_out()

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._leave_out()

    def _leave_out(self) -> None:
        """What happened since the step's end, and since the last log where there was one meanwhile."""
        now = time.perf_counter()
        self._apart += now - max(self._step_end, self._since)
        self._step_end = now
