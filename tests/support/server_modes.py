"""The ways in which a server of a language model may misbehave, and what should be told or kept of each."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import time
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import quote

from hostile_servers import Answer, Asked, completion, endless, head, http, right, slowly

IN_TIME = "did not answer within 2 seconds in 2 tries"
NO_COMPLETION = "answered, but with no chat completion"
TOO_LARGE = "answers with more than 4 MiB"
NOT_HTTP = "did not answer in whole HTTP in 2 tries"
PACKED = "compresses its answers, although asked not to"
AWAY = "redirects to another server"
CHUNKED = head("Transfer-Encoding: chunked")
DEEP = "[" * 100_000 + "]" * 100_000
STEERING = "\x1b[2J\x1b]0;owned\x07\x9b31m\x00\r"


@dataclass(frozen=True)
class Mode:
    """What the server answers; and what is told, or, where the answer is right after all, the reply that is kept."""

    answer: Answer
    told: str = ""
    kept: str | None = None


def sending(*parts: bytes) -> Answer:
    return lambda asked: parts


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def error(text: str, status: str = "500 Internal Server Error") -> Answer:
    return sending(http(text, status=status))


def repeating(form: Callable[[str], str], status: str = "400 Bad Request") -> Answer:
    """An error that holds the key in some form."""
    return lambda asked: [http(f"no such key: {form(asked.key)} !", status=status)]


def redirect(status: int, location: str) -> Answer:
    """To an address that may name {here}, {elsewhere} and {key}."""
    return lambda asked: [http("", f"Location: {location.format(**vars(asked))}", status=f"{status} Moved")]


def moved(asked: Asked) -> list[bytes]:
    return right(asked) if asked.path == "/moved" else [http("", "Location: /moved", status="307 Moved")]


def silent(asked: Asked) -> Iterator[bytes]:
    time.sleep(9)
    yield from ()


def reset(asked: Asked) -> list[bytes]:
    asked.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    asked.connection.close()
    return []


def bomb(packed: bytes, coding: str) -> Answer:
    return sending(http(packed, f"Content-Encoding: {coding}"))


TIME = {
    "silence": Mode(silent, IN_TIME),
    "a byte at a time of the head": Mode(lambda asked: slowly(head() * 9, 0.2), IN_TIME),
    "a byte at a time of the body": Mode(lambda asked: slowly(head() + b" " * 99, 0.05), IN_TIME),
    "a byte at a time in chunks": Mode(
        lambda asked: (time.sleep(0.1) or part for part in [CHUNKED, *[chunk(b" ")] * 99]), IN_TIME
    ),
    "100 Continue without end": Mode(lambda asked: endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), IN_TIME),
    "slow but in time": Mode(lambda asked: slowly(http(completion()), 0.001), kept="A"),
    "Retry-After of a day": Mode(sending(http("busy", "Retry-After: 100000", status="429 Busy")), "answered 429: busy"),
    "Retry-After of nothing": Mode(sending(http("busy", "Retry-After: nan", status="429 Busy")), "answered 429 in 2"),
    "a retry wished for": Mode(sending(http("no", "x-should-retry: true", status="400 No")), "answered 400 in 2 tries"),
}

SIZE = {
    "a body without end": Mode(lambda asked: endless(head(), b"A" * 65536), TOO_LARGE),
    "chunks without end": Mode(lambda asked: endless(CHUNKED, chunk(b" " * 65536)), TOO_LARGE),
    "a body of 9 MiB": Mode(sending(http(b" " * (9 << 20) + completion().encode())), TOO_LARGE),
    "an error without end": Mode(lambda asked: endless(head(status="400 No"), b"no " * 9999), TOO_LARGE),
    "a redirect's body without end": Mode(
        lambda asked: endless(head("Location: /moved", status="307 Moved"), b"no " * 9999), TOO_LARGE
    ),
    "a head without end": Mode(lambda asked: endless(head()[:-2], b"X-Filler: 1234567890\r\n"), NOT_HTTP),
    "a header without end": Mode(lambda asked: endless(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536), NOT_HTTP),
    "a gzip bomb": Mode(bomb(gzip.compress(b" " * (64 << 20), 9), "gzip"), PACKED),
    "a bomb in a bomb": Mode(bomb(gzip.compress(gzip.compress(b" " * (64 << 20), 9)), "gzip, gzip"), PACKED),
    "a deflate bomb": Mode(bomb(zlib.compress(b" " * (64 << 20), 9), "deflate"), PACKED),
    "a bomb as charset": Mode(
        sending(http(zlib.compress(b" " * (64 << 20), 9), "Content-Type: application/json; charset=zlib")),
        NO_COMPLETION,
    ),
    "a charset's bomb in an error": Mode(
        sending(http(zlib.compress(b" " * 9999), "Content-Type: text/plain; charset=zlib", status="400 No")),
        "answered 400",
    ),
    "a reply of a million characters": Mode(sending(http(completion("A" * 10**6))), "more than 8 tokens can be"),
    "a refusal of a million": Mode(sending(http(completion(None, message={"refusal": "no" * 10**6}))), "tokens can be"),
}

JSON = {
    "nested deeply": Mode(sending(http(DEEP)), NO_COMPLETION),
    "nested deeply in an error": Mode(error('{"error": {"message": ' + DEEP + "}}", "400 No"), "answered 400"),
    "a message nested as deep as may be": Mode(
        error('{"error": {"message": ' + "[" * 900 + "]" * 900 + "}}", "400 No"), "answered 400"
    ),
    "a code nested as deep as may be": Mode(
        error('{"error": {"code": ' + "[" * 900 + "]" * 900 + "}}", "400 No"), "answered 400"
    ),
    "a number of 5,000 digits": Mode(sending(http(completion(usage={"x": 0}).replace("0", "9" * 5000))), NO_COMPLETION),
    "a count of 400 digits": Mode(sending(http(completion(usage={"prompt_tokens": 10**400}))), kept="A"),
    "counts that are none": Mode(
        sending(http(completion(usage={"prompt_tokens": float("nan"), "completion_tokens": True}))), kept="A"
    ),
    "a content of parts": Mode(sending(http(completion([{"type": "text", "text": "A"}]))), NO_COMPLETION),
    "a content of a number": Mode(sending(http(completion(5))), NO_COMPLETION),
    "choices of a text": Mode(sending(http('{"choices": "A"}')), NO_COMPLETION),
    "usage of a text": Mode(sending(http(completion(usage="many"))), NO_COMPLETION),
    "bytes that are no UTF-8": Mode(sending(http(completion("A!").encode().replace(b"!", b"\xff"))), NO_COMPLETION),
    "half a surrogate pair": Mode(sending(http(completion("A\ud800"))), kept="A?"),
    "half a surrogate pair in an error": Mode(
        error(json.dumps({"error": {"message": "\ud800"}}), "400 No"), "answered 400"
    ),
    "two contents": Mode(sending(http(completion("B").replace('"B"', '"B", "content": "A"'))), kept="A"),
    "fields that nobody knows": Mode(sending(http(completion(seed=float("inf"), message={"thoughts": [1]}))), kept="A"),
    "half an answer": Mode(sending(http(completion()[:30])), NO_COMPLETION),
    "a page": Mode(sending(http("<html>Welcome</html>", "Content-Type: text/html")), NO_COMPLETION),
    "a stream of events": Mode(
        sending(http(f"data: {completion()}\n\n", "Content-Type: text/event-stream")), NO_COMPLETION
    ),
    "nothing": Mode(sending(http("")), NO_COMPLETION),
    "no content": Mode(sending(head(status="204 No Content")), NO_COMPLETION),
}

HTTP = {
    "a chunk of junk": Mode(sending(CHUNKED, b"zz\r\nA\r\n"), NOT_HTTP),
    "a chunk of endless length": Mode(sending(CHUNKED, b"F" * 99 + b"\r\nA"), NOT_HTTP),
    "a body shorter than said": Mode(sending(head("Content-Length: 999"), completion().encode()), NOT_HTTP),
    "a body longer than said": Mode(sending(head("Content-Length: 9"), completion().encode()), NO_COMPLETION),
    "two lengths": Mode(sending(head("Content-Length: 9", "Content-Length: 99"), b"A" * 99), NOT_HTTP),
    "a length of words": Mode(sending(head("Content-Length: nine"), b"A" * 9), NOT_HTTP),
    "an answer without a head": Mode(sending(b"Welcome!\n" * 9), NOT_HTTP),
    "bytes at random": Mode(sending(bytes(range(256)) * 9), NOT_HTTP),
    "no answer": Mode(sending(), NOT_HTTP),
    "a reset": Mode(reset, "can't be reached in 2 tries"),
    "another protocol": Mode(sending(head(status="101 Switching Protocols"), b"\x00" * 99), NOT_HTTP),
    "status 999": Mode(error("what?", "999 What"), "answered 999"),
    "odd cookies": Mode(
        sending(http(completion(), "Set-Cookie: a=b; Max-Age=1e99; Expires=x; Version=x; Domain=.", "Set-Cookie: =")),
        kept="A",
    ),
}

REDIRECTS = {
    **{
        f"elsewhere by {status}": Mode(redirect(status, "{elsewhere}/v1"), AWAY) for status in (301, 302, 303, 307, 308)
    },
    "elsewhere without a scheme": Mode(lambda asked: redirect(307, asked.elsewhere[5:])(asked), AWAY),
    "elsewhere by https": Mode(redirect(307, "https://127.0.0.1/v1"), AWAY),
    "to a file": Mode(redirect(307, "file:///etc/hostname"), AWAY),
    "in a circle": Mode(redirect(307, "{here}/v1"), "redirects more than 5 times"),
    "to no address": Mode(redirect(307, "http://[::1"), NOT_HTTP),
    "elsewhere with the key in its name": Mode(redirect(307, "http://{key}.example/"), AWAY),
    "to nowhere": Mode(sending(http("", status="307 Moved")), "answered 307"),
    "to the same server": Mode(moved, kept="A"),
}

KEY = {
    "in a reply": Mode(lambda asked: [http(completion(f"A. You are {asked.key}"))], kept="A. You are ***"),
    "cut in a reply": Mode(lambda asked: [http(completion(f"A. You are {asked.key[:-5]}"))], kept="A. You are ***"),
    "in a refusal": Mode(
        lambda asked: [http(completion(None, message={"refusal": f"Not for {asked.key}"}))], kept="Not for ***"
    ),
    "in an error": Mode(repeating(lambda key: key), "such key: *** !"),
    "percent-encoded": Mode(repeating(lambda key: quote(key, safe="")), "such key: *** !"),
    "percent-encoded throughout": Mode(
        repeating(lambda key: "".join(f"%{ord(c):02x}" for c in key)), "such key: *** !"
    ),
    "percent-encoded twice": Mode(repeating(lambda key: quote(quote(key, safe=""))), "such key: *** !"),
    "in base64": Mode(repeating(lambda key: b64encode(f"Basic user:{key}".encode()).decode()), "such key: "),
    "in JSON's escapes": Mode(repeating(lambda key: "".join(f"\\u{ord(c):04x}" for c in key)), "such key: *** !"),
    "in Python's escapes": Mode(repeating(lambda key: "".join(f"\\x{ord(c):02x}" for c in key)), "such key: *** !"),
    "in HTML's escapes": Mode(repeating(lambda key: "".join(f"&#{ord(c)};" for c in key)), "such key: *** !"),
    "in hex": Mode(repeating(lambda key: key.encode().hex().upper()), "such key: *** !"),
    "in capitals": Mode(repeating(str.upper), "such key: *** !"),
    "cut where the excerpt ends": Mode(repeating(lambda key: "x" * 275 + key), "such key: xxx"),
    "in a field": Mode(
        lambda asked: [http(json.dumps({"got": {"authorization": asked.key}}), status="400 No")], '"***"'
    ),
    "in the status line": Mode(lambda asked: [asked.key.encode() + b" is no status\r\n\r\n"], NOT_HTTP),
    "in a page": Mode(lambda asked: [http(f"<p>{asked.key}</p>")], "<p>***</p>"),
}

TERMINAL = {
    "in a reply": Mode(sending(http(completion(f"A{STEERING}"))), kept=f"A{STEERING}"),
    "in an error": Mode(error(STEERING, "400 No"), "answered 400: �[2J�]0;owned��31m�"),
    "in a page": Mode(sending(http(STEERING)), NO_COMPLETION),
    "in the status line": Mode(sending(STEERING.encode()), NOT_HTTP),
}

MODES = {
    f"{kind}: {name}": mode
    for kind, modes in (
        ("time", TIME),
        ("size", SIZE),
        ("JSON", JSON),
        ("HTTP", HTTP),
        ("redirect", REDIRECTS),
        ("key", KEY),
        ("terminal", TERMINAL),
    )
    for name, mode in modes.items()
}
