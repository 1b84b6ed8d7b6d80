"""Whether what lies in data/ and models/ was made with params.yaml as it is, or is another run's.

A preset changes params.yaml alone: until the stages run again, rows and tokenizer are those of the run before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlhf_lib.common.dvc_project import changed, look_up
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.report.inputs import LOCK, lock_stages

Stages = Mapping[str, Any]  # of dvc.lock, by name


def otherwise(out: str, but: Collection[str] = ()) -> bool:
    """Whether by dvc.lock an out was made with other params than params.yaml has now, or from one that was, or that has
    been made anew since.

    but: names of params that do not matter for it, such as base.n_embd. False where nothing is recorded of it.
    """
    if not LOCK.is_file():
        return False
    stages = _stages(_stamp(LOCK))
    return _was(out, stages, _params(_stamp(PARAMS_FILE)), but)


def _was(out: str, stages: Stages, params: Mapping[str, Any], but: Collection[str]) -> bool:
    writer = next((stage for stage in stages.values() if out in _hashes(stage, "outs")), None)
    if writer is None:
        return False
    recorded = (writer.get("params") or {}).get(str(PARAMS_FILE)) or {}
    differing = (name for key, value in recorded.items() for name in changed(key, value, look_up(params, key)))
    if any(name not in but for name in differing):
        return True
    made = {path: md5 for stage in stages.values() for path, md5 in _hashes(stage, "outs").items()}
    read = _hashes(writer, "deps")
    return any(made.get(path, md5) != md5 or _was(path, stages, params, but) for path, md5 in read.items())


def _hashes(stage: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Of the outs or the deps of a stage, by path."""
    return {entry["path"]: entry.get("md5") for entry in stage.get(kind) or []}


def _stamp(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1)
def _stages(stamp: tuple[int, int, int]) -> Stages:
    return lock_stages()


@lru_cache(maxsize=1)
def _params(stamp: tuple[int, int, int]) -> Mapping[str, Any]:
    return load_yaml(PARAMS_FILE)
