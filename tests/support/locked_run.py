"""A finished run, made up: the report's files, models of a few bytes, and the dvc.lock that DVC would have written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from project import DEMO
from report_project import make_project

from rlhf_lib.common.dvc_project import md5
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import load_yaml

PROMPTS = "data/splits/prompts_train.jsonl"
SAMPLED = {"judge": "models/judge", "reward": "models/reward", "split": "data/splits/test.jsonl"}


def make_run(root: Path, base: dict[str, Any] | None = None, sources: list[dict[str, Any]] | None = None) -> Path:
    """Write the run into `root`, which must be the working directory. `base`, `sources`: params of base and load."""
    make_project(root)
    params = load_yaml(DEMO)
    params["base"] |= base or {}
    params["load"]["sources"] = sources or params["load"]["sources"]
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    for name in ("base", "sft", "ppo", "dpo", "reward", "judge"):
        folder = root / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(f'{{"of": "{name}"}}', encoding="utf-8")
    question = {"role": "user", "content": "Name the cat."}
    for split in ("sft_train", "prompts_train", "preference_train", "test"):
        write_jsonl(root / f"data/splits/{split}.jsonl", [{"prompt": [question], "n": n} for n in range(3)])
    for folder in ("data/inputs", "data/raw"):
        (root / folder).mkdir()
    (root / "data/raw/demo.jsonl").write_text("{}\n", encoding="utf-8")
    (root / "data/inputs/base.json").write_text("{}\n", encoding="utf-8")
    write_lock(params)
    return root


def write_lock(params: dict[str, Any]) -> None:
    """Write dvc.lock for what lies in the working directory now."""
    splits = sorted(path.as_posix() for path in Path("data/splits").glob("*.jsonl"))
    stages = {
        "load": stage(params, ["load"], [], ["data/raw"]),
        "prepare": stage(params, ["prepare"], ["data/raw"], [*splits, "metrics/data.json"]),
        "base": stage(params, ["base"], ["data/inputs/base.json", "data/splits/sft_train.jsonl"], ["models/base"]),
        "sft": stage(params, ["sft"], ["models/base", "data/splits/sft_train.jsonl"], ["models/sft"]),
        "reward": stage(params, ["reward"], ["models/base"], ["models/reward"]),
        "judge": stage(params, ["judge"], ["models/base"], ["models/judge"]),
        "ppo": stage(params, ["ppo"], ["models/sft", "models/reward", PROMPTS], ["models/ppo"]),
        "dpo": stage(params, ["dpo"], ["models/sft", "data/splits/preference_train.jsonl"], ["models/dpo"]),
        "best_of_n": stage(params, ["best_of_n"], ["models/sft", *SAMPLED.values()], ["data/samples/best_of_n.jsonl"]),
        "measure@best_of_n": stage(params, [], [], ["metrics/eval/best_of_n.json"]),
    }
    for policy in ("sft", "ppo", "dpo"):
        samples = f"data/samples/{policy}.jsonl"
        deps = [f"models/{policy}", *SAMPLED.values()]
        stages[f"evaluate@{policy}"] = stage(params, ["evaluate"], deps, [samples])
        stages[f"measure@{policy}"] = stage(params, [], [samples], [f"metrics/eval/{policy}.json"])
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))


def stage(params: dict[str, Any], sections: list[str], deps: list[str], outs: list[str]) -> dict[str, Any]:
    """A stage as the lock has it."""
    return {
        "cmd": "python",
        "deps": [{"path": path, "hash": "md5", "md5": md5(path)} for path in deps],
        "params": {"params.yaml": {section: params[section] for section in sections}},
        "outs": [{"path": path, "hash": "md5", "md5": md5(path)} for path in outs],
    }
