"""The clones that a study works in, made by git and DVC themselves."""

import subprocess
from pathlib import Path

import pytest

from rlhf_lib.study.workspaces import Workspace


def run(*command, cwd="."):
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(("name", "linked"), [("mein Prøjekt 中", False), ("project", True)])
def test_a_clone_shares_the_cache_of_the_project(tmp_path, monkeypatch, name, linked):
    project = tmp_path / name
    (project / ".dvc/cache").mkdir(parents=True)
    monkeypatch.chdir(project)
    run("git", "init", "-q")
    run("dvc", "init", "-q", "-f")
    run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "first")
    (project / ".dvc/tmp").mkdir(exist_ok=True)
    (tmp_path / "scratch/deep").mkdir(parents=True)
    if linked:
        (project / ".dvc/tmp/study").symlink_to(tmp_path / "scratch/deep")
    space = Workspace(Path(".dvc/tmp/study/worker-0").absolute())
    space.make()
    (project / ".dvc/cache").mkdir(exist_ok=True)
    assert (project / ".dvc/cache").samefile(run("dvc", "cache", "dir", cwd=space.folder))
