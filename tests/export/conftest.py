"""Fixtures of the tests here."""

import pytest
from locked_run import make_run
from tiny_models import in_fp32, tiny

__all__ = ["in_fp32", "tiny"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that makes a finished run in the working directory."""
    monkeypatch.chdir(tmp_path)
    return lambda **params: make_run(tmp_path, **params)
