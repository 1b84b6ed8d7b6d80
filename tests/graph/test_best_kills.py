"""Stages that learn few rows by heart write the model of their best validation, also where they are killed and started
again."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from copied_project import ENV, copy_of_project, run
from trl_trainers import read_tsv

from rlhf_lib.common import paths
from rlhf_lib.common.rows import read_jsonl
from rlhf_lib.common.schema import read
from rlhf_lib.dpo import trainer as dpo
from rlhf_lib.dpo.params import DPOParams, ReferenceParams
from rlhf_lib.dpo.reference import COLUMNS, PAIRS
from rlhf_lib.sft import trainer as sft
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir

# Evaluations and checkpoints are due at steps of their own.
HEART = {
    "eval_steps": 4,
    "save_steps": 7,
    "logging_steps": 4,
    "num_train_epochs": 100,
    "load_best_model_at_end": "true",
}
CONSTANT = {"lr_scheduler_type": "constant", "weight_decay": 0.0}
SETTINGS = {
    "compute": {"precision": "fp32"},
    "base": {"n_embd": 128, "n_layer": 2, "n_head": 4},
    "sft": {**HEART, **CONSTANT, "learning_rate": 1e-3, "max_steps": 400, "early_stopping_patience": 6},
    "dpo": {**HEART, "learning_rate": 3e-3, "max_steps": 60},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    settings = [f"{section}.{key}={value}" for section, values in SETTINGS.items() for key, value in values.items()]
    folder = copy_of_project(tmp_path_factory.mktemp("project"), *settings)
    run(folder, "dvc", "repro", "dpo")
    return folder


def written(project: Path, stage: str) -> dict[str, str]:
    """The hashes of everything that a stage wrote."""
    folders = (project / f"models/{stage}", project / f"metrics/{stage}")
    return {
        str(f.relative_to(project)): hashlib.sha256(f.read_bytes()).hexdigest() for d in folders for f in d.iterdir()
    }


def saved(project: Path, stage: str) -> int:
    """The step of the newest whole checkpoint, 0 where there is none."""
    files = project.glob(f"checkpoints/{stage}/*/checkpoint-*/files.json")
    return max((int(file.parent.name.removeprefix("checkpoint-")) for file in files), default=0)


def killed(project: Path, stage: str, step: int, delay: float) -> bool:
    """Run a stage until so many seconds after a checkpoint of that step, or a later one; whether it was still running
    when it was killed."""
    command = [sys.executable, "-m", f"stages.{stage}"]
    with open(project / "killed.log", "w") as log:
        process = subprocess.Popen(command, cwd=project, env=ENV, start_new_session=True, stdout=log, stderr=log)
        while process.poll() is None and saved(project, stage) < step:
            time.sleep(0.001)
        time.sleep(delay)
        running = process.poll() is None
        if running:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return running


def validated(stage: str) -> float:
    """The validation loss of the exported model, as its trainer measures it."""
    checkpoints = CheckpointDir(stage)
    params = yaml.safe_load(Path("params.yaml").read_text())[stage]
    if stage == "sft":
        rows = (training.of_rows(read_jsonl(file), sft.COLUMNS) for file in sft.FILES)
        return sft.build(SFTParams(**params), paths.SFT, *rows, checkpoints).evaluate()["eval_loss"]
    reference = read("reference", ReferenceParams)
    pairs = (
        dpo.with_reference(training.dataset(path, COLUMNS), paths.reference(split)) for split, path in PAIRS.items()
    )
    return dpo.build(DPOParams(**params), reference.max_length, paths.DPO, *pairs, checkpoints).evaluate()["eval_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_exported_model_is_the_one_of_the_lowest_validation_loss(project, monkeypatch, stage):
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_ROOT", str(project))
    curve = read_tsv(f"metrics/{stage}/eval.tsv")
    losses = [float(row["eval_loss"]) for row in curve]
    lowest = min(losses)
    assert lowest < losses[-1] and losses.index(lowest) < len(losses) - 3
    assert validated(stage) == pytest.approx(lowest, rel=1e-5)
    told = json.loads(Path(paths.summary(stage)).read_text())[stage]
    assert told["best_step"] == int(curve[losses.index(lowest)]["step"]) and told["best_metric"] == lowest
    assert told["stopped_early"] is (stage == "sft")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_kills_change_nothing(project, stage):
    undisturbed, draw = written(project, stage), random.Random(stage)
    best = json.loads((project / paths.summary(stage)).read_text())[stage]["best_step"]
    # at the first checkpoint, about the best one, and long after it
    for step in (1, best, best + 1, best + 8):
        assert killed(project, stage, step, draw.uniform(0, 0.3))
        assert saved(project, stage) >= step
    last = saved(project, stage)
    assert f"checkpoint-{last}" in run(project, sys.executable, "-m", f"stages.{stage}")
    assert written(project, stage) == undisturbed
