"""Fixtures of the tests here."""

import pytest
from ppo_trainers import build
from tiny_models import checkpoints, compute, ending, in_fp32, policy, tiny, tokenizer

__all__ = ["build", "checkpoints", "compute", "ending", "in_fp32", "policy", "tiny", "tokenizer"]


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module of its own name for each test, so that none is found among those imported before."""
    monkeypatch.syspath_prepend(tmp_path)
    return lambda name, text: (tmp_path / f"{name}.py").write_text(text)
