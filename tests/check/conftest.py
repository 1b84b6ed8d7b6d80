"""A folder of a project, where the check runs."""

import shutil
from pathlib import Path

import pytest
from project import DEMO, ROOT


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (".git", ".dvc"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("dvc.yaml", "launch", "presets", "rewards", "rubrics"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(DEMO, "params.yaml")
    return tmp_path
