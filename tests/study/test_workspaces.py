"""The clones that a study works in, and what it reads of experiments; made by git and DVC themselves."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlhf_lib.study.results import from_experiment
from rlhf_lib.study.workspaces import Workspace


def run(*command, cwd="."):
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


def begin(repository):
    """A project of DVC's in the working directory, a folder of the repository."""
    run("git", "init", "-q", cwd=repository)
    run("dvc", "init", "-q", "-f", "--subdir")


def commit():
    run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "first")


@pytest.mark.parametrize(
    ("name", "repository", "linked"),
    [("mein Prøjekt 中", ".", False), ("project", ".", True), ("above/mein [#1] Prøjekt", "..", False)],
)
def test_a_clone_shares_the_cache_of_the_project(tmp_path, monkeypatch, name, repository, linked):
    """Where that is a whole repository, or a folder of one."""
    project = tmp_path / name
    (project / ".dvc/cache").mkdir(parents=True)
    monkeypatch.chdir(project)
    begin(repository)
    commit()
    (project / ".dvc/tmp").mkdir(exist_ok=True)
    (tmp_path / "scratch/deep").mkdir(parents=True)
    if linked:
        (project / ".dvc/tmp/study").symlink_to(tmp_path / "scratch/deep")
    space = Workspace(Path(".dvc/tmp/study/worker-0").absolute())
    space.make()
    (project / ".dvc/cache").mkdir(exist_ok=True)
    assert (project / ".dvc/cache").samefile(run("dvc", "cache", "dir", cwd=space.folder))
    assert (project / "checkpoints").samefile(space.folder / "checkpoints")
    assert run("git", "status", "--porcelain", cwd=space.folder) == ""
    space.remove()
    assert not Path(".dvc/tmp/study/worker-0").exists()


@pytest.mark.parametrize("repository", [".", ".."])
def test_samples_are_read_of_a_commit(tmp_path, monkeypatch, repository):
    """Also where the project is a folder of a repository, and the workspace has others by now."""
    samples = tmp_path / "project/data/samples/ppo.jsonl"
    samples.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    begin(repository)
    samples.write_text('{"id": 7}\n')
    run("dvc", "add", "-q", "data/samples/ppo.jsonl")
    run("git", "add", "data")
    commit()
    samples.write_text('{"id": 8}\n')
    assert from_experiment(SimpleNamespace(name="HEAD"), "ppo") == [{"id": 7}]
    with pytest.raises(SystemExit, match=r"HEAD: data/samples/dpo\.jsonl cannot be read .*dvc exp remove HEAD"):
        from_experiment(SimpleNamespace(name="HEAD"), "dpo")
