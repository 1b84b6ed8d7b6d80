"""The commands of docs/coming-from.md run, shrunk, and after them the whole graph."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from copied_project import commit, copy_of_project, run
from doc_pages import prose
from project import DEMO
from shrunk_presets import shrink, write_user_files

from rlhf_lib.common.rows import read_jsonl
from rlhf_lib.common.yaml import load_yaml

PAGE = Path("docs/coming-from.md")


def sections() -> dict[str, list[str]]:
    """Our commands for each system, in their order: the last column of its table."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in prose(PAGE).splitlines():
        if line.startswith("#"):
            name = line.lstrip("# ")
        elif line.startswith("| `"):
            ours = line.rstrip(" |").rpartition(" | ")[2]
            found.setdefault(name, []).extend(re.findall(r"`((?:python -m|dvc) [^`]+)`", ours))
    return {name: commands for name, commands in found.items() if commands}


def by_preset() -> dict[str, list[str]]:
    """The commands from each preset that is applied to the next one."""
    found: dict[str, list[str]] = {}
    for commands in sections().values():
        for command in commands:
            if (words := shlex.split(command))[:3] == ["python", "-m", "rlhf_lib.preset"]:
                found[name := words[3]] = []
            found[name].append(command)
    return found


def test_each_of_the_systems_has_its_commands():
    assert list(by_preset()) == [
        "trl-lora-mix",
        "ultrafeedback-mse",
        "ultrafeedback-pairs",
        "puns",
        "stackoverflow-qa",
        "hh-distilbert",
    ]
    assert all(len(commands) >= 3 for commands in by_preset().values())


@pytest.mark.slow
@pytest.mark.parametrize("preset", by_preset())
def test_the_commands_of_a_system_run(preset: str, tmp_path: Path):
    folder = copy_of_project(tmp_path)
    shutil.copy(DEMO, folder / "params.yaml")
    write_user_files(folder)
    first, *rest = by_preset()[preset]
    run(folder, *shlex.split(first))
    params = shrink(load_yaml(folder / "params.yaml"), folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    commit(folder)
    for command in rest:
        run(folder, *shlex.split(command))
    run(folder, "dvc", "repro")
    for policy in ("sft", "ppo", "dpo"):
        metrics = json.loads((folder / f"metrics/eval/{policy}.json").read_text())
        (headline, *_) = [mode for mode in metrics if mode != "dataset"]
        print(
            preset,
            policy,
            {key: metrics[headline][key] for key in ("reward", "kl", "length") if key in metrics[headline]},
        )
        assert math.isfinite(metrics[headline]["reward"]) and math.isfinite(metrics[headline]["kl"])
    sources = {row["source"].partition("/")[0] for row in read_jsonl(folder / "data/samples/ppo.jsonl")}
    assert sources == ({"puns"} if preset == "puns" else sources) and sources
    summary = json.loads((folder / "metrics/reward/summary.json").read_text())["reward"]
    print(preset, "reward", {key: summary.get(key) for key in ("accuracy", "validation_accuracy", "loss", "mse")})
    assert "Traceback" not in (folder / "report/index.html").read_text()
