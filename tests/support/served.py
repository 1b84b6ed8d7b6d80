"""A model's directory behind `python -m rlhf_lib.export serve`, for as long as a test runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from project import ROOT


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """The process, and what it has printed."""

    def __init__(self, cwd: Path, model: str, port: int, log: Path) -> None:
        self.model, self.log, self.url = model, log, f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "rlhf_lib.export", "serve", model, "--port", str(port)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "TMPDIR": str(log.parent)}
        with open(log, "w") as output:
            self.process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, stderr=output)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def wait(self) -> None:
        while "curl" not in self.said:
            assert self.process.poll() is None, self.said
            time.sleep(0.05)

    def ask(self, messages: Sequence[Any], **options: Any) -> str:
        """The answer to messages."""
        body = json.dumps({"model": self.model, "messages": messages, **options}).encode()
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)["choices"][0]["message"]["content"]

    def models(self) -> list[str]:
        with urllib.request.urlopen(f"{self.url}/v1/models") as reply:
            return [model["id"] for model in json.load(reply)["data"]]


@contextmanager
def serving(cwd: Path, model: str, folder: Path) -> Iterator[Server]:
    """A server that answers; `folder` gets its log and its temporary files."""
    server = Server(cwd, model, free_port(), folder / "log")
    try:
        server.wait()
        yield server
    finally:
        server.process.terminate()
        server.process.wait()
