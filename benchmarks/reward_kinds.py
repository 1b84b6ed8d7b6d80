"""The kinds of reward model beside one another: `python -m benchmarks.reward_kinds`.

Each kind is trained by stage `reward` itself, in a scratch folder with the project's data and models, by params alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from benchmarks import results
from rlhf_lib.common.files import write_json
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.preset.overlay import Leaf, overlay, parse_setting

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "benchmarks" / "results" / "reward_kinds.json"
CODE = ("rlhf_lib", "stages", "examples", "dvc.yaml")
INPUTS = ("data/inputs", "data/splits", "data/negatives", "models/base", "models/sft")

PLAIN = {"model_name_or_path": "models/sft", "bounded": False, "center_rewards_coefficient": None}
KINDS: dict[str, dict[str, Any]] = {
    "bradley_terry": {"loss_type": "bradley_terry"},
    "bradley_terry, centred": {"loss_type": "bradley_terry", "center_rewards_coefficient": 0.01},
    "margin": {"loss_type": "margin"},
    "ranking": {"loss_type": "ranking"},
    "mse": {"loss_type": "mse"},
    "mse, bounded": {"loss_type": "mse", "bounded": True},
    "mae": {"loss_type": "mae"},
    "fresh encoder": {"loss_type": "bradley_terry", "model_name_or_path": "models/encoder"},
}
COLUMNS = ("gold_accuracy", "ece", "mse", "fitted_mse", "sign_accuracy")


def run(kind: str, project: Path, settings: list[Leaf]) -> dict[str, Any]:
    """The numbers of one kind: what the stage measures on the test rows, and the seconds that the stage takes."""
    with tempfile.TemporaryDirectory(prefix="reward-kinds-") as name:
        folder = Path(name)
        for path in (*CODE, *INPUTS):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to((ROOT if path in CODE else project) / path)
        params = load_yaml(project / "params.yaml")
        of_kind: list[Leaf] = [(("reward", key), value) for key, value in {**PLAIN, **KINDS[kind]}.items()]
        overlay(params, settings + of_kind, "command line")
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        if kind == "fresh encoder":
            python(folder, "examples.encoder_reward", "--context", str(params["reward"]["max_length"]))
        start = time.perf_counter()
        python(folder, "stages.reward")
        seconds = time.perf_counter() - start
        summary = json.loads((folder / "metrics/reward/summary.json").read_text(encoding="utf-8"))["reward"]
    return {**summary, "seconds": seconds, "settings": {".".join(path): value for path, value in settings + of_kind}}


def python(folder: Path, module: str, *arguments: str) -> None:
    """Run a module in the folder; a `ParamsError` with the end of what it says where it fails."""
    env = {key: value for key, value in os.environ.items() if key != "DVC_ROOT"}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=folder, env=env, capture_output=True, text=True
    )
    if done.returncode:
        raise ParamsError(f"{module} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


def table(kinds: dict[str, dict[str, Any]]) -> str:
    """The kinds as a Markdown table."""
    header = "| kind | rows | accuracy ± SE | gold accuracy | ECE | MSE | fitted MSE | sign accuracy | seconds |"
    lines = [header, "|" + "---|" * (header.count("|") - 1)]
    for kind, measured in kinds.items():
        rows = measured.get("train_groups") or measured.get("train_pairs")
        numbers = [_number(measured.get(column)) for column in COLUMNS]
        accuracy = f"{_number(measured['accuracy'])} ± {_number(measured['accuracy_se'])}"
        lines.append(f"| {' | '.join([kind, str(rows), accuracy, *numbers])} | {measured['seconds']:.0f} |")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reward_kinds", description="The kinds of reward model beside one another."
    )
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help="params to set for every kind")
    parser.add_argument("--project", type=Path, default=ROOT, help="a folder where stage negatives has run")
    parser.add_argument("--name", default="demo", help="what the data are called in the results (default: demo)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, metavar="KIND", help=f"default: all of {', '.join(KINDS)}")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="results file; other names in it are kept")
    arguments = parser.parse_args()
    project = arguments.project.resolve()
    for path in INPUTS:
        if not (project / path).is_dir():
            raise ParamsError(f"{arguments.project}: no {path} in it; run dvc repro negatives there")
    settings = [parse_setting(text) for text in arguments.settings]
    measured = {}
    for kind in arguments.kinds or KINDS:
        measured[kind] = run(kind, project, settings)
        print(f"{kind}: {measured[kind]['seconds']:.0f} s", file=sys.stderr)
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    of_data = {"machine": results.machine(threads, version("trl")), "kinds": measured}
    write_json(arguments.output, {**results.read(arguments.output), arguments.name: of_data})
    print(table(measured))


if __name__ == "__main__":
    main()
