"""DVC killed alone, which leaves its stage without a parent, and another run begun at once."""

import os
import random
import shutil
import signal
import sys
import time

import psutil
import pytest
from attacked import differences, printed, repro, results, running
from copied_project import run
from tally import tally

ORPHANS = 20
# A param of each stage that makes its work another, and longer than the patience of whoever waits for it.
CHANGED = {
    "sft": ("sft.learning_rate=0.0123", "sft.max_steps=400"),
    "reward": ("reward.learning_rate=0.0123", "reward.max_steps=400"),
    "dpo": ("dpo.beta=0.321", "dpo.max_steps=400"),
    "ppo": ("ppo.kl_coef=0.321", "ppo.total_rollouts=200"),
}


def stage_of(dvc):
    """The process of the stage that DVC runs now; None where none runs."""
    for child in dvc.children(recursive=True):
        if any(word.startswith("stages.") for word in child.cmdline()):
            return child
    return None


def orphan(project, stage, seconds):
    """Kill DVC alone, so long after the stage has begun; the process that it leaves."""
    with running(project, "dvc", "repro", "-s", stage) as process:
        dvc = psutil.Process(process.pid)
        while (left := stage_of(dvc)) is None:
            assert process.poll() is None, printed(project)
            time.sleep(0.01)
        time.sleep(seconds)
        assert process.poll() is None, printed(project)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return left


@pytest.mark.slow
@pytest.mark.faults
def test_a_stage_without_its_dvc_changes_nothing_of_the_next_run(whole, tmp_path):
    expected, draw, wrong = results(whole), random.Random(0), []
    project = shutil.copytree(whole, tmp_path / "project", symlinks=True)
    params = (project / "params.yaml").read_text()
    for number in range(ORPHANS):
        stage = [*CHANGED][number % len(CHANGED)]
        run(project, sys.executable, "-m", "rlhf_lib.preset", "smoke", *CHANGED[stage])
        left = orphan(project, stage, draw.uniform(0.5, 8))
        (project / "params.yaml").write_text(params)
        repro(project, "dvc", "repro")  # at once, without what `make repro` does first
        wrong += [(stage, name) for name in differences(project, expected)]
        psutil.wait_procs([left], timeout=30)
        if left.is_running():
            wrong.append((stage, "still runs"))
        wrong += [(stage, name, "later") for name in differences(project, expected)]
    tally("DVC killed alone, its stage left running", ORPHANS, ORPHANS - len({*wrong}))
    assert not wrong
