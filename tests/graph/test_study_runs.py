"""A study on the smoke preset: killed while it runs, taken up again, told."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from copied_project import ENV, commit, copy_of_project, run

STUDY = """\
criterion: judge
seeds: [0, 1]
methods:
  ppo: [{kl_coef: 0.05}]
  dpo: [{beta: 0.05, loss_type: [sigmoid, sft]}]
"""
COMMAND = (sys.executable, "-m", "rlhf_lib.study", "--jobs", "2")


def experiments(folder: Path) -> set[str]:
    """Their names, as git has them: DVC's commands get in each other's way."""
    names = [line.rpartition("/")[2] for line in run(folder, "git", "for-each-ref", "refs/exps").splitlines()]
    return {name for name in names if name.startswith("study-")}


@pytest.mark.slow
def test_a_study_that_is_killed_goes_on_and_ends_with_a_verdict(tmp_path: Path) -> None:
    folder = copy_of_project(tmp_path)
    (folder / "study.yaml").write_text(STUDY)  # which needs no commit
    told = run(folder, *COMMAND, check=False)
    assert "the pipeline has not run here" in told
    run(folder, "dvc", "repro", "measure@sft", "measure@best_of_n")
    commit(folder)
    with (folder / "study.yaml").open("a") as file:
        file.write("# a remark\n")

    started = subprocess.Popen(COMMAND, cwd=folder, env=ENV, start_new_session=True)
    while len(experiments(folder)) < 1:
        time.sleep(1)
        assert started.poll() is None
    started.terminate()
    assert started.wait(timeout=60) != 0
    there = experiments(folder)
    assert 1 <= len(there) < 8
    assert run(folder, "git", "status", "--porcelain") == " M study.yaml\n", "the workspace is as it was"

    told = run(folder, *COMMAND)
    names = experiments(folder)
    assert there < names and len(names) == 8
    assert all(f"-seed{seed}-{split}" in " ".join(names) for seed in (0, 1) for split in ("validation", "test"))
    found = json.loads((folder / "dvc_plots/study.json").read_text())
    assert set(found["chosen"]) == {"ppo", "dpo"} and len(found["pairs"]) == 1
    assert (folder / "dvc_plots/study.png").stat().st_size > 10_000 and "## At equal KL" in told

    assert "[1/" not in run(folder, *COMMAND), "a second run trains nothing"
    assert (folder / "dvc_plots/study.json").read_text() == json.dumps(found, indent=2, sort_keys=True) + "\n"

    name = "study-dpo-beta0.05-loss_type_sigmoid_sft-seed1-validation"
    params = run(folder, "git", "show", f"{revision(folder, name)}:params.yaml")
    assert "split: prompts_validation" in params and "seed: 1" in params


def revision(folder: Path, name: str) -> str:
    listed = run(folder, "git", "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
    return next(line.split()[0] for line in listed if line.endswith(f"/{name}"))
