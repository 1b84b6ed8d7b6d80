"""The two sides' processes, seen from outside: they are started, given their turns in pairs, and listened to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.ppo.worker import ON_GPU, THREADS

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".bench"


class WorkerFailed(Exception):
    """A side's process ended before it should; says what it printed last."""


class Worker:
    """One side's process, which waits until it is its turn."""

    def __init__(self, module: str, arguments: list[str], env: Mapping[str, str], log: Path) -> None:
        self.name, self.log = module, log
        command = [sys.executable, "-m", module, *arguments]
        with open(log, "w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.process.kill()
        self.process.communicate()

    def answer(self) -> dict[str, Any]:
        """The worker's next message."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            tail = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
            raise WorkerFailed(f"{self.name} ended with code {self.process.returncode}:\n" + "\n".join(tail))
        return json.loads(line)

    def update(self) -> dict[str, Any]:
        """Let the worker do one update, and wait for its report."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `answer` says why
        return self.answer()


def updates_of(pairs: int) -> int:
    """How many updates a side is to be ready for: the warm-up, the pairs, and one whose arithmetic is counted."""
    return pairs + 2


def take_turns(
    title: str, peer: Worker, ours: Worker, pairs: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], float]:
    """A warm-up of each side, then pairs of measured turns; each side's reports, the warm-up's first, and the GFLOP of
    one more update of ours."""
    print(f"{title}; warm-up", file=sys.stderr)
    peer_updates, our_updates = [peer.update()], [ours.update()]
    name = title.partition(":")[0]
    for pair in range(1, pairs + 1):
        peer_updates.append(peer.update())
        our_updates.append(ours.update())
        seconds = [updates[-1]["cpu_seconds"] for updates in (peer_updates, our_updates)]
        print(
            f"{name}: pair {pair} of {pairs}: peer {seconds[0]:.2f} s, ours {seconds[1]:.2f} s, "
            f"ratio {seconds[0] / seconds[1]:.2f}",
            file=sys.stderr,
        )
    return peer_updates, our_updates, ours.update()["gflop"]


def worker_env(path: Sequence[Path]) -> dict[str, str]:
    """A worker's environment: one thread, no network, a GPU only where that is measured, `path` before the packages."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(THREADS))
    return {
        **os.environ,
        **threads,
        "CUDA_VISIBLE_DEVICES": "0" if ON_GPU else "",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(map(str, path)),
    }
