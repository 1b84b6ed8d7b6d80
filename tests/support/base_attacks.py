"""The check and stage base on a model that was attacked, and what of their end does not hold."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import yaml
from checked import save_model, with_values
from ended_commands import run, untold, unwell
from safetensors.torch import load_file

EXECUTED = "executed"  # a file that code of a model would make in the project's folder
RUBRIC = "rubrics/helpfulness.md"
TURNS = {
    "prompt": [{"role": "user", "content": "Name a thing."}],
    "completion": [{"role": "assistant", "content": "A house."}],
}


def sound_project(folder: Path) -> Path:
    """A folder with params, rows and a sound model of them."""
    save_model(str(folder / "model"), bos_token_id=1, eos_token_id=1)
    params = with_values({"base.model_name_or_path": "./model", "load.instructions": 160})
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / RUBRIC).parent.mkdir()
    (folder / RUBRIC).write_text("Which answer is better?\n")
    (folder / "data/splits").mkdir(parents=True)
    (folder / "data/splits/sft_train.jsonl").write_text(json.dumps(TURNS) + "\n")
    return folder


def attempted(project: Path, folder: Path, change: Callable[[Path], object], told: str | None) -> str | None:
    """What does not hold, or None, of a copy of the project whose model was changed. told: a pattern of the line that
    the stage must end with; None where it must do its work all the same."""
    shutil.copytree(project, folder)
    change(folder / "model")
    checked = run([sys.executable, "-m", "rlhf_lib.check"], folder)
    if checked.code not in (0, 1) or "Traceback" in checked.stderr:
        return f"check: exit code {checked.code}: {checked.stderr[-600:]}"
    # of the model, or of params that are too long for it
    if not all(
        re.search("base.model_name_or_path: |but the model attends to|model's context", line) for line in checked.lines
    ):
        return f"check: {checked.stderr[-600:]}"
    ended = run([sys.executable, "-m", "stages.base"], folder)
    if (folder / EXECUTED).exists():
        return "its code was executed"
    if told is None:
        return unwell(ended) or (f"check: {checked.stderr}" if checked.code else _not_finite(folder))
    return untold(ended, told) or ("something was written" if (folder / "models").exists() else None)


def _not_finite(folder: Path) -> str | None:
    weights = load_file(folder / "models/base/model.safetensors")
    return next((f"{name} is not finite" for name, weight in weights.items() if not weight.isfinite().all()), None)


def folder_of(case: str) -> str:
    """A folder's name for a case."""
    return "".join(c if c.isalnum() else "-" for c in case)
