"""Whether the project rests: nothing may run that reads or writes DVC's cache while something leaves it."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import psutil

from rlhf_lib.common.place import inside
from rlhf_lib.common.running import CLONES, LOCKS
from rlhf_lib.study.runner import LOCK


def workspaces() -> list[Path]:
    """The temporary workspaces of experiments that run, or were killed."""
    return sorted(folder for pattern in CLONES for folder in Path().glob(pattern) if folder.is_dir())


@contextmanager
def resting(repo: Any) -> Iterator[None]:
    """Hold DVC's lock; a `SystemExit` of one line where a stage, an experiment or a command of DVC is at work."""
    from dvc.lock import LockError

    try:
        repo.lock.lock()
    except LockError:
        raise SystemExit("another command of DVC is at work here; wait for it to end") from None
    try:
        for told in chain(_held(), _processes(Path(repo.root_dir))):
            raise SystemExit(f"{told}; wait for it to end, or end it: what runs needs the cache as it is")
        yield
    finally:
        repo.lock.unlock()


def _held() -> Iterator[str]:
    """What runs by the locks that it holds, also of a process that cannot be seen from here."""
    folders = [LOCKS, *(folder / inside() / LOCKS for folder in workspaces())]
    for file in [LOCK, *(file for folder in folders for file in sorted(folder.glob("*.lock")))]:
        if is_held(file):
            what = "a study" if file == LOCK else f"stage {file.stem}"
            yield f"{what} is running ({file})"


def is_held(file: Path) -> bool:
    """Whether a process holds the lock that a file is."""
    with suppress(FileNotFoundError), open(file, "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _processes(project: Path) -> Iterator[str]:
    """DVC's processes in the project, and those that it has started; not those above this one."""
    own = {process.pid for process in (psutil.Process(), *psutil.Process().parents())}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid in own or not Path(process.cwd()).is_relative_to(project):
                continue
            words = process.cmdline()
            if any(Path(word).name == "dvc" or word.startswith("stages.") for word in words):
                command = " ".join(Path(word).name if "/" in word else word for word in words[:6])
                yield f"process {process.pid} is at work here ({command})"
