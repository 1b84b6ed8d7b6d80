"""Where an export may lie: in no other's place."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.export.directory import read_manifest

GRAPH = Path("dvc.yaml")
_KINDS = ("outs", "metrics", "plots")
ELSEWHERE = "give another folder, such as --out dist"


def check(source: Path, folder: Path) -> None:
    """A `ParamsError` of one line where the model in `source` cannot be exported into `folder`: it is an export itself,
    or `folder` cannot be made, or is in the place of the source, of an out that dvc.yaml declares, or of what git
    tracks."""
    if folder.resolve() == source.resolve():
        raise ParamsError(f"{folder}: is the model that was named, which its export would replace; {ELSEWHERE}")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        why = "no right to write" if above.is_dir() else "a file, and no folder"
        raise ParamsError(f"{folder}: cannot be written: {above.name or above}: {why}; {ELSEWHERE}")
    if read_manifest(source) is not None:
        raise ParamsError(f"{source}: is an export itself; name the model that it was made from, such as models/dpo")
    if out := next((out for out in declared() if _overlap(out, folder)), None):
        raise ParamsError(f"{folder}: is the place of {out}, which a stage writes (dvc.yaml); {ELSEWHERE}")
    if tracked(folder):
        raise ParamsError(f"{folder}: git tracks it, or what is in it; {ELSEWHERE}")


def declared() -> Iterator[str]:
    """The outs that dvc.yaml declares here, each ${...} as *; none where there is no such file."""
    stages = (load_yaml(GRAPH).get("stages") or {}) if GRAPH.is_file() else {}
    for stage in stages.values():
        stage = stage.get("do", stage)
        for out in (out for kind in _KINDS for out in stage.get(kind) or []):
            path = next(iter(out)) if isinstance(out, dict) else out
            yield re.sub(r"\$\{.*?\}", "*", path)


def _overlap(out: str, folder: Path) -> bool:
    """Whether one of the two is the other, or lies in it."""
    path = Path(os.path.relpath(folder.resolve()))
    return any(fnmatchcase(place.as_posix(), out) for place in (path, *path.parents)) or Path(out).is_relative_to(path)


def tracked(folder: Path) -> bool:
    """Whether git has the folder's path, or a file below it; no where there is no git, or no repository around it."""
    command = ["git", "ls-files", "-z", "--", os.path.relpath(folder.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return False
    return done.returncode == 0 and bool(done.stdout)
