"""Answers that were made before the command ended early, so that it goes on with the others."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhf_lib.common import chunks
from rlhf_lib.common.yaml import ParamsError


def file_of(out: str) -> Path:
    """Where the answers of an unfinished `out` are: lines of JSON beside it."""
    path = Path(out)
    return path.with_name(f"{path.name}.part")


def fingerprint(*parts: Any) -> str:
    """A hash of what the answers depend on; what stands for a file is its path, size and time."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def files_in(directory: str) -> list[tuple[str, int, int]]:
    """Name, size and time (ns) of the files in a directory."""
    found = ((path.name, path.stat()) for path in sorted(Path(directory).iterdir()) if path.is_file())
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]


@contextmanager
def telling(out: str) -> Iterator[None]:
    """A context in which `out` is written: what the disk refuses becomes a `ParamsError` of one line."""
    try:
        yield
    except OSError as error:
        raise ParamsError(f"{out}: cannot be written: {error.strerror or error}; give another OUT") from None


class Unfinished:
    """The file of one command, which begins with the fingerprint of its inputs."""

    def __init__(self, file: Path, inputs: str) -> None:
        self.file = file
        kept = chunks.saved(file)
        first = next(kept, None)
        self.rows: dict[int, Any] = {}  # of batches that were made, by the number of the batch
        if first == inputs:
            self.rows = dict(kept)
            return
        if first is not None:
            print(f"{file}: of another command or of other inputs; it is begun anew")
        file.write_text("")
        chunks.append(file, inputs)

    def add(self, batch: int, rows: Any) -> None:
        """Keep what a batch gave."""
        with telling(str(self.file)):
            chunks.append(self.file, [batch, rows])
        self.rows[batch] = rows


@contextmanager
def held(out: str) -> Iterator[Path]:
    """The file beside `out`, which no other process writes meanwhile; a `ParamsError` where one does, or where there
    can be no such file."""
    file = file_of(out)
    with telling(out):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    with os.fdopen(descriptor, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ParamsError(f"{out}: another make generate writes it; wait for it, or give another OUT") from None
        try:
            yield file
        finally:
            if file.stat().st_size == 0:
                file.unlink()
