"""Whether what lies in data/ and models/ was made with params.yaml as it is, or is another run's.

A preset changes params.yaml alone: until the stages run again, rows and tokenizer are those of the run before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.report.inputs import LOCK, lock_stages, other_params

Makers = Mapping[str, tuple[str | None, Mapping[str, Any]]]  # of each out its hash, and the stage of dvc.lock


def otherwise(out: str, but: Collection[str] = ()) -> bool:
    """Whether by dvc.lock an out was made with other params than params.yaml has now, or from one that was, or that has
    been made anew since.

    but: names of params that do not matter for it, such as base.n_embd. False where nothing is recorded of it.
    """
    if not LOCK.is_file():
        return False
    return _was(out, _makers(_stamp(LOCK)), _params(_stamp(PARAMS_FILE)), but)


def _was(out: str, makers: Makers, params: Mapping[str, Any], but: Collection[str]) -> bool:
    if out not in makers:
        return False
    _, stage = makers[out]
    if any(name not in but for name in other_params(stage, params)):
        return True
    read = {dep["path"]: dep.get("md5") for dep in stage.get("deps") or []}
    is_remade = any(path in makers and makers[path][0] != md5 for path, md5 in read.items())
    return is_remade or any(_was(path, makers, params, but) for path in read)


def _stamp(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1)
def _makers(stamp: tuple[int, int, int]) -> Makers:
    stages = lock_stages().values()
    return {out["path"]: (out.get("md5"), stage) for stage in stages for out in stage.get("outs") or []}


@lru_cache(maxsize=1)
def _params(stamp: tuple[int, int, int]) -> Mapping[str, Any]:
    return load_yaml(PARAMS_FILE)
