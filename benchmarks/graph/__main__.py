"""The whole graph from scratch: time in arithmetic, in start-up, in DVC: `python -m benchmarks.graph`.

See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.graph import shim as graph_shim
from benchmarks.processes import CACHE, ROOT
from rlhf_lib.common.files import write_json

OUTPUT = ROOT / "benchmarks" / "results" / "graph.json"
SHIM = Path(graph_shim.__file__)

Seconds = dict[str, float]  # wall_seconds and cpu_seconds

# Imports again what a stage had imported when it ended, in the order in which it began to.
IMPORTS = """
import contextlib, importlib, json, sys
from pathlib import Path
from rlhf_lib.common import environment
environment.prepare()
with environment.importing():
    for name in json.loads(Path(sys.argv[1]).read_text()):
        with contextlib.suppress(Exception):  # a few modules are put into sys.modules and cannot be imported
            importlib.import_module(name)
"""

# Python runs a module of this name when it starts.
SITE = """
import atexit, json, os, sys

def write():
    with open(os.environ["GRAPH_MODULES"], "w") as file:
        json.dump([name for name in sys.modules if name != "__main__"], file)

if os.environ.get("GRAPH_PID") == str(os.getppid()):  # a stage, and none of its workers
    atexit.register(write)
"""


def timed(command: Sequence[str], project: Path, env: Mapping[str, str]) -> Seconds:
    """Seconds that a command takes in the folder `project`; `SystemExit` where it fails."""
    with tempfile.TemporaryFile("w+") as said:
        code, seconds = graph_shim.timed(command, env, cwd=project, stdout=said, stderr=subprocess.STDOUT)
        if code:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with code {code}:\n{said.read()[-4000:]}")
    return seconds


def read_log(path: Path) -> list[dict[str, Any]]:
    """What the shim wrote, in the order in which the processes ended."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def stage_name(arguments: Sequence[str]) -> str:
    """The stage that a python command runs, as DVC names it."""
    module, *rest = arguments[arguments.index("-m") + 1 :]
    name = module.removeprefix("stages.")
    return "@".join((name, *rest)) if name in ("evaluate", "measure") else name


def run(folder: Path, quick: bool) -> dict[str, Any]:
    """The graph in a clone of the project's HEAD in `folder`, and what each part of it took."""
    project, tools = folder / "project", folder / "bin"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project)], check=True)
    env = environ(folder, tools)
    python = sys.executable
    if quick:
        timed([python, "-m", "rlhf_lib.preset", "smoke"], project, env)
    check = timed([python, "-m", "rlhf_lib.check"], project, env)
    repro = timed([python, "-m", "dvc", "repro"], project, env)
    show = timed([python, "-m", "stages.report", "--show"], project, env)
    stages = {stage_name(one["arguments"]): one for one in read_log(Path(env["GRAPH_LOG"]))}
    plain = {key: value for key, value in env.items() if key != "PYTHONPATH"}
    startup = {name: timed([python, "-c", IMPORTS, one["modules"]], project, plain) for name, one in stages.items()}
    again = timed([python, "-m", "dvc", "repro"], project, env)
    return summary(stages, startup, repro, {"check": check, "show": show}, again)


def environ(folder: Path, tools: Path) -> dict[str, str]:
    """An environment in which `python` is the shim, which writes to a log in `folder`."""
    tools.mkdir()
    python = tools / "python"
    python.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -I "{SHIM}" "{sys.executable}" "$@"\n',
        encoding="utf-8",
    )
    python.chmod(0o755)
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    return {
        **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        "PATH": os.pathsep.join((str(tools), str(Path(sys.executable).parent), os.environ["PATH"])),
        "PYTHONPATH": str(site),
        "GRAPH_LOG": str(folder / "stages.jsonl"),
    }


def summary(
    stages: Mapping[str, Mapping[str, Any]],
    startup: Mapping[str, Seconds],
    repro: Seconds,
    others: Mapping[str, Seconds],
    again: Seconds,
) -> dict[str, Any]:
    """Where the time went: each stage's start-up and the rest of it, DVC's own, and what `make repro` adds.

    `repro` is `dvc repro` with the stages; `others` the commands that `make repro` runs beside it; `again` a
    `dvc repro` that finds nothing to do.
    """
    of_stages = {name: _stage(stages[name], startup[name]) for name in stages}
    parts: dict[str, Seconds] = {}
    for key in ("wall_seconds", "cpu_seconds"):
        all_stages = sum(stage[key] for stage in of_stages.values())
        starting = sum(stage[f"startup_{key}"] for stage in of_stages.values())
        whole = repro[key] + sum(other[key] for other in others.values())
        dvc = repro[key] - all_stages
        around = whole - repro[key]
        parts[key] = {
            "all": whole,
            "stages_work": all_stages - starting,
            "stages_startup": starting,
            "dvc": dvc,
            "around_dvc": around,
            "startup_and_dvc_share": (starting + dvc + around) / whole,
        }
    return {"stages": of_stages, **parts, "dvc_repro_again": again}


def _stage(took: Mapping[str, Any], startup: Seconds) -> dict[str, float]:
    keys = ("wall_seconds", "cpu_seconds")
    return {
        **{key: took[key] for key in keys},
        **{f"startup_{key}": startup[key] for key in keys},
        **{f"work_{key}": took[key] - startup[key] for key in keys},
    }


def table(case: Mapping[str, Any]) -> str:
    """A case as Markdown tables: its stages, then the parts of the whole."""
    lines = ["| stage | wall s | CPU s | start-up, CPU s | the rest, CPU s |", "|---|---|---|---|---|"]
    for name, stage in case["stages"].items():
        numbers = [stage[key] for key in ("wall_seconds", "cpu_seconds", "startup_cpu_seconds", "work_cpu_seconds")]
        lines.append(f"| {name} | {' | '.join(f'{number:.1f}' for number in numbers)} |")
    titles = {
        "stages_work": "stages: data work and arithmetic",
        "stages_startup": "stages: start-up",
        "dvc": "DVC",
        "around_dvc": "the check before, the table after",
        "all": "`make repro`",
    }
    lines += ["", "| part | wall s | share | CPU s | share |", "|---|---|---|---|---|"]
    for part, title in titles.items():
        cells = []
        for key in ("wall_seconds", "cpu_seconds"):
            of = case[key]
            cells.append(f"{of[part]:.1f} | {of[part] / of['all']:.1%}")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    again = case["dvc_repro_again"]
    lines += ["", f"`dvc repro` with nothing to do: {again['wall_seconds']:.1f} s, {again['cpu_seconds']:.1f} s of CPU"]
    return "\n".join(lines)


def threads() -> int:
    """How many threads a stage computes with."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph", description="The whole graph from scratch.")
    parser.add_argument(
        "--quick", action="store_true", help="the preset smoke: start-up and DVC, hardly any arithmetic"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="results file, in which the case is replaced")
    arguments = parser.parse_args()
    case = "smoke" if arguments.quick else "demo"
    old, machine = results.read(arguments.output), results.machine(threads(), version("trl"))
    results.check_mergeable(old, machine, [case])
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="graph-") as folder:
        measured = run(Path(folder), arguments.quick)
    write_json(arguments.output, results.merge(old, machine, {case: measured}))
    print(table(measured))


if __name__ == "__main__":
    main()
