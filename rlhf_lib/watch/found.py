"""Which stages run or ran in this project's workspace and in those of its experiments, by what they leave.

That is `.dvc/tmp/stages`: the lock of each stage (rlhf_lib/common/running.py), and the status of each that trains
(rlhf_lib/training/status.py).
"""

from __future__ import annotations

import csv
import glob
import json
import math
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rlhf_lib.common import paths
from rlhf_lib.common.place import inside
from rlhf_lib.common.running import CLONES, LOCKS

WORKSPACES = ((), *((clone,) for clone in CLONES), *((CLONES[-1], clone) for clone in CLONES[:-1]))  # clones of clones
CLOCK = 2.0  # seconds by which a process's start and a file's time may disagree

# What every status has.
_STATUS = {"pid": int, "phase": str, "unit": str, "done": int, "total": int, "written": float}

Curve = dict[str, list[float]]


@dataclass(frozen=True)
class Stage:
    """A stage in a workspace. end: how it ended (done, stopped, failed) and after how many seconds; None where it runs,
    or where it was killed. at: when it began if it runs, else when it ended, in seconds since 1970."""

    name: str
    folder: Path
    process: psutil.Process | None
    at: float
    end: tuple[str, float] | None

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self.process is not None

    def status(self) -> Mapping[str, Any]:
        """How far its training is; empty before the training begins, and where it does not train."""
        status = _json(self.folder / LOCKS / f"{self.name}.json")
        is_whole = all(isinstance(status.get(key), kind) for key, kind in _STATUS.items())
        return status if is_whole and self.process and status["pid"] == self.process.pid else {}

    def curve(self, part: str) -> Curve:
        """The columns of its curve so far, part train or eval; empty where there is none."""
        return read_curve(self.folder / paths.curve(self.name, part))

    def memory(self) -> int:
        """Bytes of memory that it and the processes under it hold, with those of its launcher; 0 once it is gone."""
        if self.process is None:
            return 0
        with suppress(psutil.Error):
            top, above = self.process, self.process.parent()
            if above is not None and "accelerate" in " ".join(above.cmdline()[:4]):
                top = above
            return sum(map(_memory, (top, *top.children(recursive=True))))
        return 0

    def experiment(self) -> str | None:
        """The name of the experiment that it runs for."""
        if self.process is not None:
            with suppress(psutil.Error):
                return self.process.environ().get("DVC_EXP_NAME")
        return None


def stages(root: Path) -> list[Stage]:
    """The stages of all workspaces of a project, the latest first."""
    within = glob.escape(inside(root).as_posix())  # of each clone, which is one of the whole repository
    places = (Path(*(part for clone in clones for part in (clone, within))) for clones in WORKSPACES)
    files = (file for place in places for file in root.glob(str(place / LOCKS / "*.lock")))
    return sorted(filter(None, map(_stage, files)), key=lambda stage: -stage.at)


def _stage(lock: Path) -> Stage | None:
    """What a lock tells; None where its process is only about to write into it, a workspace has gone, or it is none."""
    try:
        lines, changed = lock.read_text(encoding="utf-8").splitlines(), lock.stat().st_mtime
        pid = int(lines[0])
        how, _, seconds = lines[1].partition(" ") if len(lines) > 1 else ("", "", "0")
        took = float(seconds)
    except (OSError, ValueError, IndexError):
        return None
    if pid < 1 or not math.isfinite(took):
        return None
    folder = lock.parents[len(LOCKS.parts)]
    if how:
        return Stage(lock.stem, folder, None, changed, (how, took))
    return Stage(lock.stem, folder, _process(pid, changed), changed, None)


def _process(pid: int, begun: float) -> psutil.Process | None:
    """The process of that id if it was there at that time, and has not ended since."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        if process.create_time() < begun + CLOCK and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _memory(process: psutil.Process) -> int:
    with suppress(psutil.Error):
        return process.memory_info().rss
    return 0


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_curve(file: Path) -> Curve:
    """The columns of a TSV file of numbers, a cell without one as NaN; empty where there is no such file."""
    try:
        with open(file, encoding="utf-8", newline="") as stream:
            rows = list(csv.reader(stream, delimiter="\t"))
    except (OSError, ValueError):
        return {}
    header, *body = rows or [[]]
    return {name: [_number(row[i]) if i < len(row) else math.nan for row in body] for i, name in enumerate(header)}


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def gpus() -> Iterator[str]:
    """What NVIDIA's tool says of each GPU, in words; nothing where it is not installed."""
    if shutil.which("nvidia-smi") is None:
        return
    query = ["--query-gpu=index,memory.used,memory.total,utilization.gpu", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        told = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, timeout=5, check=True).stdout
        for line in told.splitlines():
            index, used, total, busy = (word.strip() for word in line.split(","))
            yield f"GPU {index}: {float(used) / 1024:.1f} of {float(total) / 1024:.0f} GiB, {busy} % busy"
