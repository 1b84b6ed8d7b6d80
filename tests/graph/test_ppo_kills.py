"""PPO killed at any moment and started again by `dvc repro` ends as a run that was left alone."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from copied_project import ENV, copy_of_project, run

# `-f`: with the same inputs, DVC would else take the outputs of the first run from its cache.
REPRO = ("dvc", "repro", "-f", "-s", "ppo")
SETTINGS = ("ppo.total_rollouts=40", "ppo.eval_rollouts=4", "ppo.save_rollouts=2")


def results(project: Path) -> dict[str, str]:
    """The hashes of everything that the stage wrote."""
    folders = (project / "models/ppo", project / "metrics/ppo", project / "data/samples")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for folder in folders for file in folder.iterdir()}


def is_saving(project: Path) -> bool:
    """Whether a checkpoint's directory is there and its last file is not."""
    return any(not (c / "trainer_state.json").exists() for c in project.glob("checkpoints/ppo/*/checkpoint-*"))


def saved_steps(project: Path) -> int:
    """The step of the newest whole checkpoint, 0 where there is none."""
    files = project.glob("checkpoints/ppo/*/checkpoint-*/trainer_state.json")
    return max((int(file.parent.name.removeprefix("checkpoint-")) for file in files), default=0)


def after_the_next_save(project: Path, delay: float) -> Callable[[], bool]:
    """A moment so many seconds after the next checkpoint, anywhere in the rollouts that follow it."""
    before = saved_steps(project)

    def moment() -> bool:
        reached = saved_steps(project) > before
        if reached:
            time.sleep(delay)
        return reached

    return moment


def repro_until(project: Path, moment: Callable[[], bool]) -> bool:
    """Run the stage through DVC until the moment, then kill DVC and the stage; whether it was still running then."""
    log = open(project / "killed.log", "w")  # noqa: SIM115 -- closed with the process
    process = subprocess.Popen(REPRO, cwd=project, env=ENV, start_new_session=True, stdout=log, stderr=log)
    while process.poll() is None and not moment():
        time.sleep(0.001)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    log.close()
    return running


@pytest.mark.slow
def test_five_kills_change_nothing(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path)
    run(project, sys.executable, "-m", "rlhf_lib.preset", "smoke", *SETTINGS)
    run(project, "dvc", "repro", "ppo")
    undisturbed = results(project)
    run(project, *REPRO)
    assert results(project) == undisturbed

    draw = random.Random(0)
    assert repro_until(project, lambda: saved_steps(project) > 0)
    assert repro_until(project, lambda: is_saving(project))
    for _ in range(3):
        assert repro_until(project, after_the_next_save(project, draw.uniform(0, 0.5)))
    last = saved_steps(project)
    output = run(project, *REPRO)
    assert f"checkpoint-{last}" in output
    assert results(project) == undisturbed
