"""How far a training is, which no curve says: in a file beside the stage's lock, for `make watch`.

It is no out and no dep: DVC hashes nothing of it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from transformers import Trainer, TrainerState, TrainingArguments

from rlhf_lib.common import running
from rlhf_lib.common.files import replacing

PAUSE = 1.0  # seconds between two writings, at least
SHARE = 0.02  # of the time, at most, that goes into writing: a file that grows takes ever longer


class Pace:
    """When to write again: `PAUSE` later, or later still where writing would take more than a share of the time."""

    def __init__(self, share: float = SHARE) -> None:
        self.share, self.next = share, 0.0

    def is_due(self) -> bool:
        """Whether it is time to."""
        return time.monotonic() >= self.next

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A context that writes, on a disk that may refuse: what is due at a training's end fails where it must."""
        start = time.monotonic()
        with suppress(OSError):
            yield
        end = time.monotonic()
        self.next = end + max(PAUSE, (end - start) / self.share)


class Status:
    """The status of one run of a trainer; nothing is written outside a DVC project."""

    def __init__(self, trainer: Trainer, stage: str) -> None:
        self.trainer, self.pace = trainer, Pace(share=1.0)  # the file does not grow
        self.file = running.LOCKS / f"{stage}.json"
        self.start = 0  # steps or rollouts of earlier processes
        self.first: tuple[float, int] | None = None  # after the first of this one's: the time, and how many were done
        self.counted: tuple[float, float] | None = None  # the same of tokens, at the first log
        self.tokens_per_second: float | None = None

    def done(self, state: TrainerState) -> tuple[str, int, int]:
        """("step", how many are done, of how many); PPO's rollouts, which may be left before their last step."""
        if rollouts := getattr(self.trainer, "ppo_state", None):
            return "rollout", rollouts.rollouts_done, self.trainer.params.total_rollouts
        return "step", state.global_step, state.max_steps

    def begin(self, args: TrainingArguments, state: TrainerState) -> None:
        """The training begins, or goes on from a checkpoint."""
        self.start, self.first = self.done(state)[1], None
        self.look(args, state, "training")

    def look(self, args: TrainingArguments, state: TrainerState, phase: str) -> None:
        """Write it if it is time to. phase: training, validating or trained."""
        done = self.done(state)[1]
        if self.first is None and done > self.start:
            self.first = time.time(), done  # which took longer than those to come
        if self.pace.is_due():
            with self.pace.writing():
                self.write(args, state, phase)

    def count(self, logs: Mapping[str, float]) -> None:
        """Take the speed from a log: as it stands there, or by the tokens that TRL counts from the process's start."""
        for key, value in logs.items():
            if key.endswith("tokens_per_second"):
                self.tokens_per_second = value
            elif key == "num_tokens":
                now = time.time()
                then, before = self.counted = self.counted or (now, value)
                if value > before:
                    self.tokens_per_second = (value - before) / (now - then)

    def write(self, args: TrainingArguments, state: TrainerState, phase: str) -> None:
        """Write it now."""
        if not running.LOCKS.is_dir():
            return
        unit, done, total = self.done(state)
        status: dict[str, Any] = {"pid": os.getpid(), "phase": phase, "unit": unit, "done": done, "total": total}
        now = time.time()
        if self.first is not None and done > self.first[1]:
            status["seconds_each"] = (now - self.first[0]) / (done - self.first[1])
        if unit == "step":
            status |= {"epoch": state.epoch, "epochs": args.num_train_epochs if args.max_steps <= 0 else None}
        with replacing(self.file) as file:
            json.dump({**status, "tokens_per_second": self.tokens_per_second, "written": now}, file)
