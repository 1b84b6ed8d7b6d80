"""What takes disk beside the cache: state to resume from, workspaces that a kill left, and logs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rlhf_lib.common.launching import processes
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.prune.idle import is_held, workspaces
from rlhf_lib.training.checkpoint import fingerprint
from rlhf_lib.training.whole import delete

CHECKPOINTS = Path("checkpoints")


@dataclass(frozen=True)
class State:
    """The state to resume from of one run of a stage."""

    path: Path
    size: int  # bytes
    stale: bool  # params.yaml, code and data as they are now would not take it up


def size_of(folder: Path) -> int:
    """Bytes in a folder, a file that is there by two hard links counted once."""
    found = {}
    for file in folder.rglob("*"):
        with suppress(OSError):
            info = file.lstat()
            if not file.is_dir():
                found[info.st_dev, info.st_ino] = info.st_size
    return sum(found.values())


def states() -> list[State]:
    """What checkpoints/ has; not what a run that goes on has locked."""
    there = [path for path in sorted(CHECKPOINTS.glob("*/*")) if path.is_dir() and not is_held(path / ".lock")]
    current = {stage: _current(stage) for stage in {path.parent.name for path in there}}
    found = []
    for path in there:
        known = current[path.parent.name]
        found.append(State(path, size_of(path), known is not None and path.name.split("-")[0] not in known))
    return found


def remove_states(found: list[State]) -> int:
    """Delete states; the bytes."""
    for state in found:
        delete(state.path)
    return sum(state.size for state in found)


def remove_workspaces() -> int:
    """Delete what killed experiments have left; the bytes. Nothing may run."""
    freed = 0
    for folder in workspaces():
        freed += size_of(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return freed


def _current(stage: str) -> frozenset[str] | None:
    """The fingerprints that the stage would take up now; None where they cannot be told."""
    launch = str(load_yaml(PARAMS_FILE).get("launch", "python"))
    count = processes(launch)
    if count is None:
        return None
    found = set()
    with suppress(SystemExit, KeyError, OSError):  # no such stage, or not all that it reads is there
        with _environment(WORLD_SIZE=str(count)):
            found.add(fingerprint(stage))
        for is_sharded in ("false", "true")[: 1 if launch == "python" else 2]:
            with _environment(ACCELERATE_USE_FSDP=is_sharded):
                found.add(fingerprint(stage, any_processes=True))
        return frozenset(found)
    return None


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
