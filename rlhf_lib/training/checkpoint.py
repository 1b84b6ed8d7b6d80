"""Resumable training state, kept outside DVC's outs.

DVC deletes a stage's outs before it runs, so state that must outlive a kill lies in
`checkpoints/<stage>/<fingerprint>` at the project's root. The fingerprint covers what dvc.yaml declares for the
stage (command, contents of deps, values of params), so another param never resumes this one's state.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rlhf_lib.common import dvc_project, edited, environment
from rlhf_lib.common.launching import is_main, num_processes
from rlhf_lib.common.left_out import declared_outs
from rlhf_lib.common.schema import PARAMS_FILE, setting
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.training.whole import delete, fault, sweep


def fingerprint(stage: str, any_processes: bool = False) -> str:
    """16 hex digits over the command, params and dependency contents that dvc.yaml declares for `stage`, and over the
    number of processes, by which the batch grows.

    any_processes: a batch is shared out over the processes instead, and any number of them may go on; but not with
    shards where there were none, or without where there were.
    """
    params = load_yaml(PARAMS_FILE)
    launch, processes = str(params.get("launch")), str(num_processes())
    if any_processes:
        launch, processes = "", os.environ.get("ACCELERATE_USE_FSDP", "false")  # set by accelerate launch
    declared = dvc_project.declared(stage, load_yaml(dvc_project.GRAPH), {**params, "launch": launch})
    tracked = {key: setting(params, key) for key in declared.get("params", [])}
    words = [declared["cmd"], tracked, processes]
    digest = hashlib.blake2b(json.dumps(words, sort_keys=True).encode(), digest_size=8)
    for dep in sorted(declared["deps"]):
        for file in _files(Path(dep)):
            digest.update(file.as_posix().encode() + b"\0")
            with open(file, "rb") as stream:
                digest.update(hashlib.file_digest(stream, "blake2b").digest())
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    """The files of a dep, but for those that DVC does not see either: what Python and editors leave behind.

    A `SystemExit` of one line where there is none.
    """
    if not path.exists():
        raise SystemExit(f"{path}: no such file or directory; the stage before this one writes it (dvc repro)")
    if not path.is_dir():
        return [path]
    ignored = dvc_project.ignored()
    return sorted(file for file in path.rglob("*") if file.is_file() and not ignored.match_file(file))


class CheckpointDir:
    """The directory in which one run of a stage keeps its checkpoints, locked while it runs.

    A second run of the same stage with the same inputs (say, two workers of one queue) gets a directory of its own.
    """

    def __init__(self, stage: str, any_processes: bool = False) -> None:
        # not in the temporary workspaces of `dvc exp run --queue`, which vanish on failure
        self.stage, base = stage, environment.project() / "checkpoints" / stage
        self.path = base / fingerprint(stage, any_processes)
        self.path.mkdir(parents=True, exist_ok=True)
        sweep(base)
        sweep(self.path)
        if is_main():  # which holds the lock for all of several processes
            self._take(base)
        if num_processes() > 1:
            from rlhf_lib.models import machines  # make prune, which asks for fingerprints, has no use for torch

            machines.check_folder(self.path)

    def _take(self, base: Path) -> None:
        """Lock the directory, or another one where a run has it already."""
        self._lock: Any = open(self.path / ".lock", "w")  # noqa: SIM115 -- held open for the lock's life
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if num_processes() > 1:
                raise ParamsError(f"{self.path}: in use by another run of {self.stage}; wait for it to end") from None
            print(f"{self.path} is in use by another run of {self.stage}; this run keeps its checkpoints apart")
            self.path = Path(tempfile.mkdtemp(prefix=f"{self.path.name}-", dir=base))

    def latest(self) -> str | None:
        """The newest whole `checkpoint-<step>`, or None; a line on each newer one that is not whole."""
        for path in sorted(self.path.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1])):
            told = fault(path)
            if told is None:
                return str(path)
            if is_main():
                print(f"{self.path}: {told}: it is not taken up again")
        return None

    def remove(self) -> None:
        """Delete the directory; call it once the stage has written its outs. A `SystemExit` where what the stage was
        started with has been edited, or DVC's cache has no room for the outs: who sets that right goes on from here."""
        edited.tell()
        if "DVC_STAGE" in os.environ:
            outs = [path for path, options in declared_outs(self.stage) if options.get("cache", True)]
            if told := dvc_project.no_room(outs, self.path):
                raise SystemExit(f"{self.stage}: {told}")
        self.drop()

    def drop(self) -> None:
        """Delete the directory of a run from which none is to go on."""
        delete(self.path)
        self._lock.close()


class ChunkDir(CheckpointDir):
    """The directory of a stage that saves what it computes chunk by chunk (`common/chunks.py`). A chunk is shared out
    over the processes, so that any number of them may go on. Every process makes it, and removes it."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage, any_processes=True)

    def remove(self) -> None:
        from rlhf_lib.models import processes

        processes.wait()
        if is_main():
            super().remove()
