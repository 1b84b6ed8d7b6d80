"""Fixtures of the tests here."""

import shutil

import pytest
from project import DEMO
from tiny_models import compute, in_fp32

__all__ = ["compute", "in_fp32"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with the demo's params.yaml, where the test runs."""
    shutil.copy(DEMO, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path
