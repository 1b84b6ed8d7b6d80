"""Two branches that were both run are merged, by real git and DVC, as docs/sweeps.md has it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from copied_project import ENV, commit, copy_of_project, executed, run

pytestmark = pytest.mark.slow


def run_branch(project: Path, name: str, setting: str) -> None:
    run(project, "git", "checkout", "-q", "-b", name, "start")
    key, value = setting.split("=")
    path = project / "params.yaml"
    old = f"\n  {key}: "
    head, _, tail = path.read_text().partition(old)
    path.write_text(f"{head}{old}{value}\n{tail.partition(chr(10))[2]}")
    run(project, "dvc", "repro", "--quiet", "sft")
    commit(project)


def test_a_merge_needs_no_hands_but_for_params(tmp_path):
    project = copy_of_project(tmp_path)
    run(project, "dvc", "repro", "--quiet", "base")
    commit(project)
    run(project, "git", "branch", "start")
    run_branch(project, "ours", "logging_steps=1")
    run_branch(project, "theirs", "eval_steps=1")
    run(project, "git", "checkout", "-q", "ours")
    merged = run(project, "git", "merge", "theirs", check=False)
    assert "CONFLICT" in merged and "dvc.lock" in merged
    assert "<<<<<<<" not in (project / "params.yaml").read_text()
    assert "possible merge conflicts" in run(project, "dvc", "repro", "sft", check=False)
    told = run(project, sys.executable, "-P", "rlhf_lib/repair.py")
    assert told.startswith("repaired: dvc.lock: it holds git's marks of a merge")
    assert executed(run(project, "dvc", "repro", "sft")) == ["sft"]  # with both params, which neither branch had
    marked = subprocess.run(["git", "grep", "-l", "^<<<<<<< ", "--", "metrics", "dvc.lock"], cwd=project, env=ENV)
    assert marked.returncode == 1
    commit(project)
    assert run(project, "git", "status", "--porcelain") == ""
