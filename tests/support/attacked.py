"""Copies of the project that are attacked while `make repro` runs in them, and what becomes of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from copied_project import ENV, copy_of_project

from rlhf_lib.repair import is_copy

# As a user types it; the environment is the one that the tests run in, and is not made anew.
REPRO = ("make", "-o", ".venv/run.stamp", "repro")
WRITTEN = ("data", "metrics", "models", "report")
LIMIT = 600  # seconds for a whole run


def results(project: Path) -> dict[str, str]:
    """The hashes of dvc.lock and of all that the stages wrote."""
    files = [file for name in WRITTEN for file in (project / name).rglob("*") if file.is_file()]
    files = [file for file in files if not is_copy(file.name)]  # DVC looks past them, and repair takes them away later
    lock = yaml.load((project / "dvc.lock").read_text(encoding="utf-8"), yaml.CSafeLoader)
    return {
        "dvc.lock": _md5(json.dumps(lock, sort_keys=True).encode()),  # in whatever order the stages were run
        **{str(file.relative_to(project)): _md5(file.read_bytes()) for file in files if file.name != ".gitignore"},
    }


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def differences(project: Path, expected: dict[str, str]) -> list[str]:
    """The files that are not as expected, in a project's folder."""
    found = results(project)
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def repro(project: Path, *command: str) -> str:
    """Run `make repro`, or another command, to its end, which must be a good one; what it printed."""
    done = subprocess.run(
        command or REPRO,
        cwd=project,
        env=ENV,
        text=True,
        timeout=LIMIT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def undisturbed(folder: Path) -> dict[str, str]:
    """What a run that nothing disturbs writes, in a new copy of the project."""
    repro(copy_of_project(folder))
    return results(folder)


@contextmanager
def running(project: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """`make repro`, or another command, as a process group of its own; what it prints, `printed` gives."""
    with _log(project).open("wb") as log:
        process = subprocess.Popen(
            command or REPRO, cwd=project, env=ENV, start_new_session=True, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def printed(project: Path) -> str:
    """What the last command of `running` printed."""
    return _log(project).read_text(encoding="utf-8", errors="replace")


def _log(project: Path) -> Path:
    return project.with_name(f"{project.name}.log")


def struck(project: Path, moment: Callable[[], bool], *command: str, number: int = signal.SIGKILL) -> bool:
    """Run until the moment, then send a signal to all processes of the run; whether it still ran then. One that ended
    before must have ended well."""
    with running(project, *command) as process:
        while process.poll() is None and not moment():
            time.sleep(0.001)
        if process.poll() is not None:
            assert process.returncode == 0, printed(project)[-3000:]
            return False
        os.killpg(process.pid, number)
        process.wait(timeout=LIMIT)
    return True


def after(seconds: float) -> Callable[[], bool]:
    """A moment so many seconds from now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def begin_anew(project: Path) -> None:
    """Forget all that was run in a project, DVC's cache too; what git has of metrics is an input."""
    for name in (".dvc/cache", "models", "report", "metrics", "checkpoints"):
        shutil.rmtree(project / name, ignore_errors=True)
    (project / "dvc.lock").unlink(missing_ok=True)
    subprocess.run(["git", "clean", "-qfdX", "data"], cwd=project, env=ENV, check=True)
    subprocess.run(["git", "checkout", "-q", "--", "metrics"], cwd=project, env=ENV, check=True)
