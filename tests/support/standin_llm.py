"""A stand-in for an OpenAI-compatible server on loopback, which notes what it is asked."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import loopback
from loopback import Loopback

ANSWERS = re.compile(r"BEGIN ANSWER A (\w+)\n(.*)\nEND ANSWER A \1\n\nBEGIN ANSWER B \1\n(.*)\nEND ANSWER B \1\n", re.S)


def answers(body: Mapping[str, Any]) -> tuple[str, str]:
    """The answers A and B in a request."""
    found = ANSWERS.search(body["messages"][-1]["content"])
    assert found, body
    return found[2], found[3]


def longer(body: Mapping[str, Any]) -> str:
    """A judge that prefers the longer answer."""
    a, b = answers(body)
    return "tie" if len(a) == len(b) else "A" if len(a) > len(b) else "B"


@dataclass
class Fault:
    """What comes instead of the next `times` verdicts."""

    times: int
    status: int = 200
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0  # seconds before the answer
    content_type: str = "application/json"


@dataclass
class StandInLLM(Loopback):
    """`with StandInLLM() as server`: at `server.url`; `server.requests` and `server.headers` get an entry a request.

    `judge` makes the text of the reply, or the choice with message and finish_reason, from the body of the request.
    """

    judge: Callable[[Mapping[str, Any]], str | dict[str, Any]] = longer
    usage: dict[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 100, "completion_tokens": 2})
    key: str | None = None
    faults: list[Fault] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    def fail(self, times: int, **fault: Any) -> None:
        self.faults.append(Fault(times, **fault))

    def note(self, body: dict[str, Any], headers: Mapping[str, str]) -> Fault | None:
        """Note a request, and say what comes instead of a verdict."""
        with self.lock:
            self.requests.append(body)
            self.headers.append({name.lower(): value for name, value in headers.items()})
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            fault = next((fault for fault in self.faults if fault.times), None)
            if fault is not None:
                fault.times -= 1
        return fault


class Handler(loopback.Handler):
    owner: StandInLLM

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.owner.note(body, self.headers)
        if fault is not None:
            time.sleep(fault.wait)
            answer = fault.status, fault.body, {"Content-Type": fault.content_type, **fault.headers}
        elif self.path != "/v1/chat/completions":
            answer = error(404, f"no such address: {self.path}")
        elif self.owner.key and self.headers["Authorization"] != f"Bearer {self.owner.key}":
            answer = error(401, f"Incorrect API key provided: {self.headers['Authorization']}")
        else:
            answer = 200, json.dumps(self.completion(body)), {}
        with self.owner.lock:
            self.owner.in_flight -= 1
        self.reply(*answer)

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        choice = self.owner.judge(body)
        if isinstance(choice, str):
            choice = {"message": {"role": "assistant", "content": choice}, "finish_reason": "stop"}
        answer = {"id": "x", "object": "chat.completion", "model": body["model"], "choices": [choice]}
        return answer | ({"usage": self.owner.usage} if self.owner.usage else {})

    def reply(self, status: int, text: str, headers: Mapping[str, str]) -> None:
        content = text.encode()
        self.send_head(status, {"Content-Type": "application/json", **headers}, len(content))
        self.wfile.write(content)


def error(status: int, message: str) -> tuple[int, str, dict[str, str]]:
    return status, json.dumps({"error": {"message": message, "code": None}}), {}


StandInLLM.handler = Handler
