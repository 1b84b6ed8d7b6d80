"""A sweep on two machines and a third that compares: clones with a git remote and a DVC remote, on the smoke preset."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from copied_project import commit, copy_of_project, executed, run

# Each half trains one policy; the other point is that of params.yaml.
HALVES = {"a": "--ppo=0.05,0.2", "b": "--dpo=0.05,0.2"}
NAMES = ["sweep-ppo-kl0.05-seed0", "sweep-ppo-kl0.2-seed0", "sweep-dpo-beta0.05-seed0", "sweep-dpo-beta0.2-seed0"]


@pytest.fixture
def clones(tmp_path: Path) -> dict[str, Path]:
    """Clones a, b and c of a git remote. Clone a has run the pipeline and pushed it; b has pulled that, c has not."""
    run(tmp_path, "git", "init", "-q", "--bare", "--initial-branch=main", "pipeline.git")
    folders = {name: tmp_path / name for name in "abc"}
    folders["a"].mkdir()
    first = copy_of_project(folders["a"])
    run(first, "git", "branch", "-M", "main")
    run(first, "git", "remote", "add", "origin", "../pipeline.git")
    # Not ../store: in `dvc exp push` a relative path is one from the root of the file
    # system, github.com/treeverse/dvc/issues/10054
    run(first, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    run(first, "dvc", "repro")
    commit(first)
    run(first, "git", "push", "-q", "-u", "origin", "main")
    run(first, "dvc", "push")
    for name in "bc":
        run(tmp_path, "git", "clone", "-q", "pipeline.git", name)
    run(folders["b"], "dvc", "pull")
    return folders


def stored(clones: dict[str, Path]) -> int:
    """How many files the DVC remote has."""
    return sum(file.is_file() for file in (clones["a"].parent / "store").rglob("*"))


def sweep(folder: Path, values: str) -> list[str]:
    """Run half a sweep as `make sweep` does, push it, and give the stages that ran."""
    run(folder, sys.executable, "-m", "rlhf_lib.experiments.sweep", values)
    ran = executed(run(folder, "dvc", "exp", "run", "--run-all", "-j", "1"))
    run(folder, "dvc", "exp", "push", "origin")
    return ran


@pytest.mark.slow
def test_two_clones_run_half_a_sweep_each_and_a_third_compares_and_trains_nothing(clones: dict[str, Path]) -> None:
    before = stored(clones)
    with ThreadPoolExecutor() as pool:
        ran = dict(zip(HALVES, pool.map(sweep, (clones[name] for name in HALVES), HALVES.values()), strict=True))
    # params.yaml has policy: ppo, so that `select` of its DPO point is the one stage that is new
    assert {name: sorted(stages) for name, stages in ran.items()} == {
        "a": ["evaluate@ppo", "measure@ppo", "ppo", "select"],
        "b": ["dpo", "evaluate@dpo", "measure@dpo", "select", "select"],
    }

    assert stored(clones) > before, "dvc exp push sends the models to the remote, and not to a folder of another path"

    third = clones["c"]
    run(third, "dvc", "exp", "pull", "origin")
    table = run(third, sys.executable, "-m", "rlhf_lib.experiments")
    assert all(f"| {name} " in table for name in NAMES)
    frontier = run(third, sys.executable, "-m", "rlhf_lib.experiments.frontier")
    points = [line.split("|")[1:4] for line in frontier.splitlines() if line.startswith(("| PPO", "| DPO"))]
    assert [[cell.strip() for cell in point] for point in points] == [
        *[["PPO (kl_coef)", "0.05", "1"], ["PPO (kl_coef)", "0.2", "1"]],
        *[["DPO (beta)", "0.05", "1"], ["DPO (beta)", "0.2", "1"]],
    ]
    assert "metrics/policy.json" in run(third, "dvc", "metrics", "diff", NAMES[0], NAMES[-1])

    for name in NAMES:
        run(third, "dvc", "exp", "apply", name)
        assert executed(run(third, "dvc", "repro", "select")) == [], name
        assert (third / "models" / name.split("-")[1] / "model.safetensors").is_file()

    # The whole sweep asked for again, once from a fresh state of the commit: all of it is there, and nothing is queued.
    run(third, "git", "checkout", "-q", "--force", "--", ".")
    shutil.rmtree(third / "models")
    said = run(third, sys.executable, "-m", "rlhf_lib.experiments.sweep", *HALVES.values(), check=False)
    assert "dvc pull" in said
    run(third, "dvc", "pull")
    said = run(third, sys.executable, "-m", "rlhf_lib.experiments.sweep", *HALVES.values())
    assert said.splitlines() == [f"{name}: there already" for name in NAMES]
