"""A small project of DVC with a sweep: stages that write files of known sizes in place of models."""

from __future__ import annotations

import subprocess
import sys
from hashlib import md5
from pathlib import Path

from copied_project import ENV, commit, run

WEIGHTS, TOKENIZER, SAMPLES = 100_000, 5_000, 3_000  # bytes
BETAS = {"low": 1, "high": 2, "best": 3}  # experiments
STAGE = """
import json, sys
from pathlib import Path

import yaml

stage = sys.argv[1]
params = yaml.safe_load(open("params.yaml"))
model = Path("models") / stage
model.mkdir(parents=True)
seed = f"{stage} {params[stage]['beta']} "
(model / "weights").write_text((seed * 50000)[:100000])
(model / "tokenizer").write_text(("words " * 1000)[:5000])
if stage == "train":
    Path("data").mkdir(exist_ok=True)
    Path("data/samples").write_text((seed * 3000)[:3000])
    Path("metrics").mkdir(exist_ok=True)
    Path("metrics/train.json").write_text(json.dumps({"beta": params[stage]["beta"]}) + "\\n")
"""
GRAPH = """
stages:
  base:
    cmd: python stage.py base
    deps: [stage.py]
    params: [base]
    outs: [models/base]
  train:
    cmd: python stage.py train
    deps: [stage.py, models/base]
    params: [train]
    outs: [models/train, data/samples]
    metrics:
    - metrics/train.json: {cache: false}
"""
IGNORED = "/models\n/data\n/checkpoints\n/logs\n"


def make(folder: Path) -> Path:
    """The project, committed, with an experiment for each of BETAS beside the run of its params.yaml."""
    folder.mkdir(parents=True)
    for name, text in {
        "stage.py": STAGE,
        "dvc.yaml": GRAPH,
        "params.yaml": "launch: python\nbase: {beta: 0}\ntrain: {beta: 0}\n",
        ".gitignore": IGNORED,
    }.items():
        (folder / name).write_text(text.lstrip())
    run(folder, "git", "init", "-q")
    dvc(folder, ["init", "-q"], ["config", "core.analytics", "false"], ["repro", "-q"])
    commit(folder)
    swept = (["--name", name, "-S", f"train.beta={beta}"] for name, beta in BETAS.items())
    dvc(folder, *(["exp", "run", "-q", "--temp", *words] for words in swept))
    return folder


def dvc(folder: Path, *commands: list[str]) -> None:
    """DVC's commands, in one process: most of their time is that of its imports."""
    code = "import sys; from dvc.cli import main; sys.exit(any(map(main, eval(sys.argv[1]))))"
    run(folder, sys.executable, "-c", code, repr(commands))


def prune(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m rlhf_lib.prune` there."""
    environment = {**ENV, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, "-m", "rlhf_lib.prune", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def stored(folder: Path) -> dict[str, int]:
    """The objects of its cache, and their bytes."""
    found = (folder / ".dvc/cache/files/md5").glob("*/*")
    return {file.parent.name + file.name: file.stat().st_size for file in found}


def has_weights(folder: Path, beta: int, stage: str = "train") -> bool:
    """Whether the cache has a whole model that was trained with beta."""
    text = (f"{stage} {beta} " * 50000)[:WEIGHTS].encode()
    name = md5(text, usedforsecurity=False).hexdigest()
    lists = [file.read_text() for file in (folder / ".dvc/cache/files/md5").glob("*/*.dir")]
    return name in stored(folder) and any(name in listed for listed in lists)


def revision(folder: Path, name: str) -> str:
    """The commit of an experiment."""
    listed = run(folder, "git", "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    return next(line.split()[0] for line in listed.splitlines() if line.endswith(f"/{name}"))
