"""A model's directory behind `python -m rlhf_lib.export serve`, for as long as a test runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
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

    def post(self, body: dict[str, Any]) -> Any:
        """What it replies to a body."""
        data = json.dumps({"model": self.model, **body}).encode()
        request = urllib.request.Request(f"{self.url}/v1/chat/completions", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as reply:
            return json.load(reply)

    def reply(self, messages: Sequence[Any], **options: Any) -> Any:
        """The reply to messages."""
        return self.post({"messages": messages, **options})

    def ask(self, messages: Sequence[Any], **options: Any) -> str:
        """The answer to messages."""
        return self.reply(messages, **options)["choices"][0]["message"]["content"]

    def refused(self, body: dict[str, Any], status: int = 400) -> str:
        """The one line with which it refuses a body."""
        try:
            self.post(body)
        except urllib.error.HTTPError as error:
            assert error.code == status
            told = json.load(error)["error"]["message"]
            assert "\n" not in told
            return told
        raise AssertionError("it was answered")

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
