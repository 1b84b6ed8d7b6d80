"""Which local files each stage reads that dvc.yaml cannot name: those of params.yaml, and what may not be there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rlhf_lib.common import paths
from rlhf_lib.common.policies import TRAINERS
from rlhf_lib.scoring.source import parse

REWARDED = ("ppo", "attainable", "attained")  # which call PPO's reward functions
LAUNCHED = (*TRAINERS, "reference", "candidates", *REWARDED[1:], "evaluate", "best_of_n", "overoptimisation")
READERS = ("load", "prepare", "base", "negatives", "llm_judge")
STAGES = (*READERS, *LAUNCHED, "report")
OUTS = (paths.BASE, *map(paths.model, TRAINERS))  # DVC watches those that are deps
# The param of each of these stages that names a model, or a tokenizer.
MODELS = {
    "prepare": "tokenizer_name_or_path",
    "base": "model_name_or_path",
    "negatives": "model_name_or_path",
    "reward": "model_name_or_path",
    "judge": "model_name_or_path",
}
PATH_STARTS = (".", "/", "~")


class Named(NamedTuple):
    """What a param names: files (one, or those of a glob), a folder, or a Python module of the project."""

    param: str
    name: str
    kind: Literal["files", "folder", "module"]


def by_stage(params: Mapping[str, Any], root: Path) -> dict[str, list[Named]]:
    """The local inputs of each of `STAGES`. `params`: the whole of params.yaml, checked.

    root: the project, whose folders are told from the ids of the hub.
    """

    def model(section: str, key: str) -> list[Named]:
        name = params[section][key]
        local = name and not _is_out(name) and (name.startswith(PATH_STARTS) or _is_folder(name, root))
        return [Named(f"{section}.{key}", name, "folder")] if local else []

    launch = [Named("launch", file, "files") for file in launch_files(params["launch"], root)]
    sources, judge = enumerate(params["load"]["sources"]), params["llm_judge"]
    read = {
        "load": [Named(f"load.sources[{i}].path", s["path"], "files") for i, s in sources if s.get("path")],
        **{stage: model(stage, key) for stage, key in MODELS.items()},
        **{stage: [n for entry in params["ppo"]["reward_funcs"] for n in _reward(entry, root)] for stage in REWARDED},
        "llm_judge": [Named("llm_judge.rubric", judge["rubric"], "files")] if judge["base_url"] else [],
        # no param names it, and no stage makes it; of the copies that `dvc exp run` makes, each has its commit's
        "report": [Named("", paths.LM_EVAL, "files")] if os.path.isfile(paths.LM_EVAL) else [],
    }
    return {stage: [*(launch if stage in LAUNCHED else []), *read.get(stage, [])] for stage in STAGES}


def launch_files(launch: str, root: Path) -> list[str]:
    """The files that the launch command names, such as that of --config_file."""
    words = [word.partition("=")[2] or word for word in launch.split()[1:]]
    return [word for word in words if _is_file(word, root)]


def _reward(entry: str, root: Path) -> list[Named]:
    source = parse(entry)
    if source.kind == "function":
        return [Named("ppo.reward_funcs", source.location, "module")]
    if _is_out(entry) or (source.kind == "hub" and not _is_folder(entry, root)):
        return []
    return [Named("ppo.reward_funcs", source.location, "folder")]


def _is_out(name: str) -> bool:
    return os.path.relpath(os.path.expanduser(name)) in OUTS


def _is_file(name: str, root: Path) -> bool:
    name = os.path.expanduser(name)
    return os.path.isfile(name) or os.path.isfile(root / name)


def _is_folder(name: str, root: Path) -> bool:
    return os.path.isdir(root / os.path.expanduser(name))
