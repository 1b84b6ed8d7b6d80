"""Stages that leave themselves out: nothing gives them rows, or an earlier stage was left out.

Such a stage ends well, says so in one line, and writes what dvc.yaml declares for it, without content: a folder with
one note in it, a JSON Lines file without rows, metrics that hold the reason, a curve without points. `reason` tells
these from the real ones, so that the stages after it leave themselves out in turn.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from rlhf_lib.common import paths
from rlhf_lib.common.dvc_project import GRAPH, declared
from rlhf_lib.common.files import write_curve, write_json
from rlhf_lib.common.launching import is_main
from rlhf_lib.common.rows import read_values, write_jsonl
from rlhf_lib.common.yaml import load_yaml

NOTE = "left_out.txt"  # alone in the folder of a model that is not there
KEY = "left_out"  # in metrics

# Why the files of data/splits and data/negatives are empty, by the first word of their names.
NO_PREFERENCES = "no source gives preferences"
NOTHING_GIVES = {
    "sft": "no source gives answers to learn from",
    **dict.fromkeys(("reward", "groups", "preference", "thumbs", "judge"), NO_PREFERENCES),
    "prompts": "no source gives prompts for PPO",
}
# What is told in its place where there are thumbs, and pairs for no stage. The outs do not say so: their stages do not
# depend on the thumbs.
ONLY_THUMBS = "only thumbs: no pairs; kto learns from them (methods.kto=true)"


def reason(path: str | Path) -> str | None:
    """Why an out is without content; None where it has some, or is not there at all."""
    path = Path(path)
    if path.is_dir():
        names = [file.name for file in path.iterdir()]
        return (path / NOTE).read_text(encoding="utf-8").strip() if names == [NOTE] else None
    if not path.is_file():
        return None
    if path.suffix == ".json":
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            return None  # whoever reads it says so
        return metrics.get(KEY) if isinstance(metrics, dict) else None
    if path.suffix == ".jsonl" and next(read_values(path), None) is None:
        if path.parent.name == "samples":
            return f"no answers of {path.stem}, which was left out"
        of_data = NOTHING_GIVES if path.parent.name in ("splits", "negatives") else {}
        return of_data.get(path.stem.partition("_")[0], f"{path} has no rows")
    return None


def unless_wanted(stage: str, method: str, wanted: bool) -> None:
    """Go on where the method that the stage is for is wanted, by the section `methods`; else leave the stage out, and
    end the process."""
    if not wanted:
        leave_out(stage, f"methods.{method} is false")


def unless_there(
    stage: str,
    *needs: str | Path,
    enough: Callable[[Iterable[bool]], bool] = all,
    copies: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Go on where the files and folders that the stage needs have content; else leave it out, and end the process.

    stage: its name in dvc.yaml, `measure@ppo` for one of several. enough: `all` or `any` of the needs. copies: outs
    that are copies of other folders then, instead of empty.
    """
    reasons = [reason(path) for path in needs]
    if not enough(why is None for why in reasons):
        leave_out(stage, next(why for why in reasons if why is not None), copies)


def leave_out(stage: str, why: str, copies: Mapping[str, str] = MappingProxyType({})) -> NoReturn:
    """Write the stage's outs without content and end the process with exit code 0."""
    if is_main():
        for path, options in declared_outs(stage):
            _write(Path(path), options, why, copies.get(path))
        told = why_no_preferences(with_rows()) if why == NO_PREFERENCES else why
        print(f"{stage}: left out: {told}" + "".join(f"; {out} is a copy of {other}" for out, other in copies.items()))
    sys.exit(0)


def why_no_preferences(files: Collection[str]) -> str:
    """What a stage is told that learns from pairs and has none. files: the names of those in data/splits with rows.

    Pairs that the roles give to other stages are thumbs for KTO too, so that thumbs beside pairs explain nothing.
    """
    pairs = {f"{name}_train" for name, why in NOTHING_GIVES.items() if why == NO_PREFERENCES} - {"thumbs_train"}
    return ONLY_THUMBS if "thumbs_train" in files and pairs.isdisjoint(files) else NO_PREFERENCES


def with_rows() -> set[str]:
    """The names of the files of data/splits that have rows."""
    files = Path(paths.split("any")).parent.glob("*.jsonl")
    return {path.stem for path in files if reason(path) is None}


def declared_outs(stage: str) -> list[tuple[str, dict[str, Any]]]:
    """(path, options) of each out, metric and plot that dvc.yaml declares for a stage."""
    found = declared(stage, load_yaml(GRAPH))
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in found.get(kind, ())]
    return [next(iter(entry.items())) if isinstance(entry, dict) else (entry, {}) for entry in entries]


def _write(path: Path, options: Mapping[str, Any], why: str, copied: str | None) -> None:
    if path.suffix == ".jsonl":
        write_jsonl(path, [])
    elif path.suffix == ".json":
        write_json(path, {KEY: why})
    elif path.suffix == ".tsv":
        write_curve(path, [], [options[axis] for axis in ("x", "y")])
    else:
        shutil.rmtree(path, ignore_errors=True)
        if copied:
            shutil.copytree(copied, path)
        else:
            path.mkdir(parents=True)
            (path / NOTE).write_text(f"{why}\n", encoding="utf-8")
