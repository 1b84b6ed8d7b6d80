"""Stages that read or sample with a model, killed and started again by `dvc repro`: they go on, to the same bytes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from copied_project import ENV, copy_of_project, run

OUTS = {
    "reference": "data/reference/train.jsonl",
    "evaluate@sft": "data/samples/sft.jsonl",
    "best_of_n": "data/samples/best_of_n.jsonl",
    "attainable": "data/samples/attainable.jsonl",
}
ONE_BY_ONE = [f"{name}.per_device_eval_batch_size=1" for name in ("evaluate", "attainable")]
ONE_BY_ONE += ["reference.precompute_ref_batch_size=1", "evaluate.samples_per_prompt=4", "evaluate.max_new_tokens=32"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which these stages have run."""
    folder = copy_of_project(tmp_path_factory.mktemp("project"), *ONE_BY_ONE)
    run(folder, "dvc", "repro", *OUTS)
    return folder


def saved(project: Path, stage: str) -> bool:
    return any(file.stat().st_size for file in project.glob(f"checkpoints/{stage}/*/*.jsonl"))


def killed_once_it_has_saved(project: Path, stage: str) -> None:
    # `-f`: with the same inputs, DVC would else take the outs of the first run from its cache
    with open(project / "killed.log", "w") as log:
        process = subprocess.Popen(
            ["dvc", "repro", "-f", "-s", stage], cwd=project, env=ENV, start_new_session=True, stdout=log, stderr=log
        )
        while process.poll() is None and not saved(project, stage):
            time.sleep(0.002)
        assert process.poll() is None, (project / "killed.log").read_text()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("stage", OUTS)
def test_it_goes_on_to_the_same_bytes(project: Path, stage: str) -> None:
    expected = (project / OUTS[stage]).read_bytes()
    killed_once_it_has_saved(project, stage)
    assert saved(project, stage) and not (project / OUTS[stage]).exists()
    told = run(project, "dvc", "repro", "-f", "-s", stage)
    assert re.search(r"^resuming after [1-9]\d* of \d+ (prompts|train pairs)$", told, re.MULTILINE), told
    assert (project / OUTS[stage]).read_bytes() == expected
    assert not list((project / "checkpoints" / stage).iterdir())
