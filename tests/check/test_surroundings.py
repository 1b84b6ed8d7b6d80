"""What keeps DVC from working in the project's folder."""

import os

import pytest

from rlhf_lib.check.surroundings import fault


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".git").mkdir()
    return tmp_path


def test_a_project_is_well(project):
    assert fault() is None


def test_a_worktree_is_well(project):
    (project / ".git").rmdir()
    (project / ".git").write_text("gitdir: elsewhere\n")
    assert fault() is None


def test_no_repository_is_told(project):
    (project / ".git").rmdir()
    said = "no git repository, which DVC needs; clone the project, or make it one: git init && git add -A && git commit"
    assert said in fault()
    (project / ".dvc/config").write_text("[core]\n    no_scm = True\n")
    assert fault() is None


def test_no_dvc_is_told(project):
    (project / ".dvc").rmdir()
    assert "no folder .dvc in it; clone the project, or make one with `dvc init`" in fault()


def test_a_path_with_braces_is_told(project, monkeypatch):
    (project / "a{b}").mkdir()
    (project / "a{b}/dvc.yaml").touch()
    monkeypatch.chdir(project / "a{b}")
    assert fault().endswith("DVC fails in a path with braces; move the project to one without")


def test_elsewhere_there_is_nothing_to_tell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fault() is None


def test_a_user_without_a_name_is_told(project, monkeypatch):
    """As `docker run --user 4711` makes one."""
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert fault() == "user 2147483641 has no name here, for which DVC asks; export USER=somebody"
    monkeypatch.setenv("USER", "somebody")
    assert fault() is None
