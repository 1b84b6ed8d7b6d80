"""A server on loopback that answers with whatever bytes a test gives it, as slowly and as long as it likes."""

from __future__ import annotations

import itertools
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Asked:
    """A request: the key in it, its path, its connection, and the addresses of this server and of another one."""

    key: str
    path: str
    connection: socket.socket
    here: str
    elsewhere: str


Answer = Callable[[Asked], Iterable[bytes]]


@dataclass
class Listener:
    """`with ... as server`: a thread for each connection, at `server.address`; the first bytes of each in `heard`."""

    heard: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._serve, args=(self.socket.accept()[0],), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the client went away
            connection.settimeout(60)
            self.answer(connection)

    def answer(self, connection: socket.socket) -> None:
        self.heard.append(connection.recv(1 << 16))


@dataclass
class HostileServer(Listener):
    """Answers the first `honest` requests with a right verdict, and each later one with the bytes of `mode`.

    A connection bears one answer. Whoever is sent on by a redirect is heard by `server.elsewhere`.
    """

    mode: Answer = lambda asked: ()
    honest: int = 0
    elsewhere: Listener = field(default_factory=Listener)

    def __enter__(self) -> Self:
        self.elsewhere.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__()
        self.elsewhere.__exit__()

    @property
    def url(self) -> str:
        return f"{self.address}/v1"

    def answer(self, connection: socket.socket) -> None:
        request = b""
        while not (head := re.match(rb"(?s)\S+ (\S+) .*?\r\n\r\n", request)) or len(request) < _whole(request):
            part = connection.recv(1 << 16)
            if not part:
                return
            request += part
        key = re.search(rb"(?i)\r\nauthorization: bearer (\S+)\r\n", request)
        self.heard.append(request)
        asked = Asked(
            key[1].decode() if key else "", head[1].decode(), connection, self.address, self.elsewhere.address
        )
        for part in right(asked) if len(self.heard) <= self.honest else self.mode(asked):
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(1)
        connection.recv(1)  # until the client has read it: to close at once would take it away from there


def _whole(request: bytes) -> int:
    head, _, _ = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return len(head) + 4 + int(length[1] if length else 0)


# ---- bytes of answers


def http(body: bytes | str, *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer."""
    body = body.encode() if isinstance(body, str) else body
    return head(*headers, f"Content-Length: {len(body)}", status=status) + body


def head(*headers: str, status: str = "200 OK") -> bytes:
    """An answer as far as its body."""
    lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


def completion(content: Any = "A", **fields: Any) -> str:
    """A chat completion."""
    message = {"role": "assistant", "content": content, **fields.pop("message", {})}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], **fields})


def right(asked: Asked) -> list[bytes]:
    """What a server should answer."""
    return [http(completion("A", usage={"prompt_tokens": 10, "completion_tokens": 1}))]


def slowly(data: bytes, wait: float) -> Iterator[bytes]:
    """One byte after the other, `wait` seconds apart."""
    for byte in data:
        yield bytes([byte])
        time.sleep(wait)


def endless(start: bytes, data: bytes) -> Iterator[bytes]:
    """Some bytes, and then others again and again."""
    return itertools.chain([start], itertools.repeat(data))
