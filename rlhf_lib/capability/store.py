"""Where the numbers are kept: metrics/lm_eval.json by model and by what was asked; what was said of each document.

Those of a limit are trials, which have a file of their own: git does not track it, and the page does not read it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_lib.capability.numbers import Row, about, compared
from rlhf_lib.common import paths
from rlhf_lib.common.dvc_project import file_md5, md5
from rlhf_lib.common.files import rounded, write_json
from rlhf_lib.common.rows import read_jsonl, write_jsonl

BASELINE = paths.SFT
TRIALS = f"{paths.LM_EVAL_ROWS}/trials.json"


def key_of(model: str) -> str:
    """A model's name in the file: its path from here."""
    return os.path.relpath(os.path.expanduser(model))


def read(file: str = paths.LM_EVAL) -> dict[str, Any]:
    """The numbers by model and by what was asked; none where there is no file.

    A `SystemExit` of one line for a broken one.
    """
    path = Path(file)
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not all("higher_is_better" in about(entry) for tasks in found.values() for entry in tasks.values()):
            raise ValueError
    except (ValueError, AttributeError, TypeError, LookupError):
        raise SystemExit(f"{path}: not as make lm-eval writes it; delete it, and run make lm-eval again") from None
    return found


def keep(
    model: str,
    found: Mapping[str, Mapping[str, Any]],
    rows: Mapping[str, Sequence[Row]],
    file: str = paths.LM_EVAL,
) -> dict[str, Any]:
    """Put a model's numbers, and what was said of each document, in the place of those that were asked alike; all that
    the file then has.

    found, rows: by what was asked. What the file has of other models, and of what was asked otherwise, stays; all
    differences are computed again, but for those from a baseline that has been trained anew since.
    """
    for task, of_task in rows.items():
        path = _rows_file(model, task)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(path, of_task)
        found = {**found, task: {**found[task], "about": [{**about(found[task]), "rows_md5": file_md5(path)}]}}
    known = read(file)
    known[model] = {**known.get(model, {}), **rounded(found)}  # as they are read, so that a second run gives the same
    now, of_baseline = md5(BASELINE), known.get(BASELINE, {})
    others = {task: entry for task, entry in of_baseline.items() if now in (None, about(entry)["model_md5"])}
    known = compared(
        known, BASELINE, others, lambda name, task: _rows(name, task, about(known[name][task]).get("rows_md5"))
    )
    write_json(file, known)
    return known


def _rows_file(model: str, task: str) -> Path:
    names = (re.sub(r"[^\w.-]+", "_", name) for name in (model, task))
    return Path(paths.LM_EVAL_ROWS).joinpath(*names).with_suffix(".jsonl")


def _rows(model: str, task: str, hashed: str | None) -> list[dict[str, Any]]:
    """What was said of each document, if it is still there as it was when the numbers were written."""
    path = _rows_file(model, task)
    return read_jsonl(path) if hashed and path.is_file() and file_md5(path) == hashed else []
