"""A small project with a sweep: made once, copied for each test."""

import shutil
from pathlib import Path

import pytest
import swept


@pytest.fixture(scope="session")
def original(tmp_path_factory) -> Path:
    return swept.make(tmp_path_factory.mktemp("original") / "project")


@pytest.fixture
def project(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / "project", symlinks=True)
