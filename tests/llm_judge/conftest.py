"""The stage that judges and its stand-in server."""

from __future__ import annotations

import anyio
import pytest
from judged import write_project
from standin_llm import StandInLLM


@pytest.fixture
def server():
    with StandInLLM() as server:
        yield server


@pytest.fixture
def project(tmp_path, server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    write_project(tmp_path, server.url)
    return tmp_path


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the client would wait between two tries, in order; it does not wait them."""
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    return waited
