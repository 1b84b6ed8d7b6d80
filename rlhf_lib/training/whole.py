"""Checkpoints are taken whole or not at all.

Trainer writes a checkpoint file by file, and deletes the one before it file by file. What a kill leaves of either looks
like a checkpoint, and would resume to other weights. So the last file of a checkpoint is a list of its files with their
sizes, the one before it is kept until then, and what is to be deleted loses its name first.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from rlhf_lib.common.files import replacing, write_json

MANIFEST = "files.json"
STATE, ARGUMENTS = "trainer_state.json", "training_args.bin"  # transformers' names
_DELETED = ".deleted-"


def seal(path: Path) -> None:
    """Write the list of a checkpoint's files. The place of the best one goes out of its state, and its name into the
    list: a project can be moved, and transformers forgets a best one that is not where the state says."""
    (path / ARGUMENTS).unlink(missing_ok=True)  # a pickle that nothing reads
    state_file = path / STATE
    state, name = json.loads(state_file.read_text(encoding="utf-8")), None
    if place := state.get("best_model_checkpoint"):
        state["best_model_checkpoint"], name = None, Path(place).name
        with replacing(state_file) as file:
            file.write(json.dumps(state, indent=2, sort_keys=True) + "\n")
    sizes = {str(file.relative_to(path)): file.stat().st_size for file in _files(path)}
    write_json(path / MANIFEST, {"best": name, "files": sizes})


def best(path: Path) -> Path | None:
    """The best checkpoint that a whole one names; None where it names none."""
    name = _json(path / MANIFEST)["best"]
    return None if name is None else path.with_name(name)


def fault(path: Path) -> str | None:
    """What is missing of a checkpoint, or of the best one that it names; None where both are whole."""
    if told := _fault(path):
        return told
    other = best(path)
    return None if other in (None, path) else _fault(other)


def _fault(path: Path) -> str | None:
    listed = _json(path / MANIFEST)
    if not isinstance(listed, dict) or {*listed} != {"best", "files"} or not isinstance(_json(path / STATE), dict):
        return f"{path.name} was cut short"
    for name, size in listed["files"].items():
        file = path / name
        if not file.is_file():
            return f"{path.name} lacks {name}"
        if file.stat().st_size != size:
            return f"{path.name} has only a part of {name}"
    return None


def _json(file: Path) -> Any:
    """The value in a JSON file; None where there is none to read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def delete(path: Path) -> None:
    """Delete a directory, which loses its name first: no half of it is ever taken for the whole."""
    doomed = path.rename(path.with_name(f"{_DELETED}{path.name}-{os.getpid()}"))
    shutil.rmtree(doomed, ignore_errors=True)


def sweep(path: Path) -> None:
    """Delete what a kill left of directories that were to be deleted in one."""
    for doomed in path.glob(f"{_DELETED}*"):
        shutil.rmtree(doomed, ignore_errors=True)


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and file.name != MANIFEST)
