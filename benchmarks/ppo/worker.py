"""What the two sides' processes share: turns, clocks and memory.

A worker reads a line from stdin before each update and answers with one line of JSON after it; it waits in between,
so that only one side runs at a time. Whatever else it prints goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from benchmarks.ppo.cases import CASES, Case
from rlhf_lib.training.checkpoint import CheckpointDir

THREADS = 1
ON_GPU = os.environ.get("BENCHMARK_ON_GPU") == "1"  # set by `python -m benchmarks.gpu ppo`
PHASES = ("sampling", "reward", "scoring", "update", "optimizer", "other")

Result = TypeVar("Result")


class Finished(Exception):
    """Every update was reported: ends a trainer's loop before it would save anything."""


@dataclass(frozen=True)
class Task:
    case: Case
    updates: int  # the warm-up included
    models: Path


def arguments(cases: Collection[str]) -> argparse.Namespace:
    """What every worker's command line says: case, updates, the folder of the work, and whether at toy size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=cases, required=True)
    parser.add_argument("--updates", type=int, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def task(cases: Mapping[str, Case] = CASES) -> tuple[str, Task]:
    """What the command line asks a worker of the PPO benchmark, or of one with other cases, to do: case and task."""
    asked = arguments(cases)
    case = cases[asked.case]
    return asked.case, Task(case.quick() if asked.quick else case, asked.updates, asked.models)


class Arithmetic(Protocol):
    """What else is measured of each update, outside its clocks: benchmarks/arithmetic.py."""

    def begin(self, is_last: bool) -> None: ...

    def measured(self) -> dict[str, Any]: ...


class Turns:
    """Takes turns with the other side, and measures each update between its turn's beginning and its end."""

    def __init__(self, updates: int) -> None:
        self.updates = updates
        self.done = 0
        self.arithmetic: Arithmetic | None = None  # set where it is measured too
        # The answers keep the first stdout to themselves; what libraries print goes to stderr.
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, message: dict[str, Any]) -> None:
        """One line of JSON to whoever started this process."""
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()

    def begin(self) -> None:
        """Wait for the turn, then start the clocks."""
        if not sys.stdin.readline():
            raise Finished  # nobody is left to measure for
        if self.arithmetic is not None:
            self.arithmetic.begin(is_last=self.done + 1 == self.updates)
        self._wall, self._cpu = time.perf_counter(), clock()

    def measured(self) -> dict[str, Any]:
        """What is reported about the update that ends now."""
        cpu, wall = clock() - self._cpu, time.perf_counter() - self._wall
        more = {} if self.arithmetic is None else self.arithmetic.measured()
        return {"cpu_seconds": cpu, "wall_seconds": wall, "peak_mb": peak_mb(), **more}

    def end(self) -> None:
        """Stop the clocks and report the update; begin the next, or raise `Finished` after the last."""
        self.say(self.measured())
        self.done += 1
        if self.done == self.updates:
            raise Finished
        self.begin()


class PhasedTurns(Turns):
    """Turns of PPO, whose time is recorded by phase, and whose responses are counted."""

    def __init__(self, updates: int) -> None:
        super().__init__(updates)
        self.phases: dict[str, float] = defaultdict(float)
        self.tokens = 0  # sampled as responses, their EOS included

    def begin(self) -> None:
        self.phases.clear()
        self.tokens = 0
        super().begin()

    def measured(self) -> dict[str, Any]:
        measured = super().measured()
        phases = {**self.phases, "other": measured["cpu_seconds"] - sum(self.phases.values())}
        return {
            **measured,
            "response_tokens": self.tokens,
            "phases": {name: phases.get(name, 0.0) for name in PHASES},
        }

    def timed(self, phase: str, function: Callable[..., Result]) -> Callable[..., Result]:
        """`function`, whose CPU seconds count as the phase's. Phases must not call one another."""

        def wrapper(*args: Any, **kwargs: Any) -> Result:
            start = clock()
            try:
                return function(*args, **kwargs)
            finally:
                self.phases[phase] += clock() - start

        return wrapper


class Nowhere(CheckpointDir):
    """A stage's checkpoints where nothing is saved, so that nothing is fingerprinted or locked; of no stage, whose
    curves would be overwritten."""

    def __init__(self, folder: Path) -> None:
        self.path, self.stage = folder / "checkpoints", ""


def train(run: Callable[[], Any]) -> None:
    """Train until the last update that was asked for has been reported; a RuntimeError if training ends before."""
    try:
        run()
    except Finished:
        return
    raise RuntimeError("training ended before the last update was reported")


def clock() -> float:
    """Seconds of the process's CPU time; on a GPU those on the wall, once it has done what it was given."""
    if not ON_GPU:
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak() -> None:
    """Let `peak_mb` start from the memory that is held now, where the system can do that."""
    if ON_GPU:
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("the peak memory cannot be reset here: it includes the start of the process", file=sys.stderr)


def peak_mb() -> float:
    """The most memory in MiB that this process held since `reset_peak`; on a GPU, the GPU's."""
    if ON_GPU:
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
