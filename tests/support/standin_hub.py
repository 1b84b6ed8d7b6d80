"""A stand-in for the Hugging Face hub on loopback: as much of its API as reading datasets and models needs."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import loopback
from loopback import Loopback

API = re.compile(r"/api/(datasets|models)/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(?:/(.*))?)?")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repo:
    """A folder of files at one commit, which is also the branch main. With a token, it is gated."""

    folder: Path
    commit: str
    token: str | None = None


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose line holds `on`."""

    times: int
    on: str
    wait: float = 0.0  # seconds before the answer
    status: int | None = None  # the answer is an HTTP error
    cut: int | None = None  # the answer ends after so many bytes of the file,
    reset: bool = False  # with a reset of the connection


@dataclass
class StandInHub(Loopback):
    """`with StandInHub() as hub`: a server at `hub.url`; `hub.requests` gets a line for each request."""

    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.address

    def add(self, kind: str, repo_id: str, folder: Path, commit: str, token: str | None = None) -> None:
        """Serve the files of `folder`; `kind` is datasets or models."""
        self.repos[kind, repo_id] = Repo(folder, commit, token)

    def fail(self, times: int, on: str, **fault: Any) -> None:
        self.faults.append(Fault(times, on, **fault))

    def note(self, line: str) -> Fault:
        """Note a request, and say what goes wrong with it."""
        with self.lock:
            self.requests.append(line)
            fault = next((fault for fault in self.faults if fault.times and fault.on in line), Fault(0, line))
            fault.times -= 1
        return fault


class Handler(loopback.Handler):
    owner: StandInHub

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.fault = self.owner.note(" ".join(filter(None, (self.command, path, self.headers["Range"]))))
        time.sleep(self.fault.wait)
        if self.fault.status:
            self.error(self.fault.status, "", "trouble")
        elif match := RESOLVE.fullmatch(path):
            self.resolve(*match.groups())
        elif match := API.fullmatch(path):
            self.api(*match.groups())
        else:
            self.error(404, "", "no such address")

    do_GET = do_HEAD = do_CONNECT = answer

    def repo(self, kind: str, repo_id: str, revision: str | None) -> Repo | None:
        """The repository; None, and an answer that says so, where there is none or not at this revision."""
        repo = self.owner.repos.get((kind, repo_id))
        if repo is None:
            # to who has no token, the hub does not say whether there is one
            self.error(404 if self.headers["Authorization"] else 401, "RepoNotFound", "Repository not found")
        elif revision not in (None, "main", repo.commit):
            self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repo

    def api(self, kind: str, repo_id: str, what: str | None, revision: str | None, path: str | None) -> None:
        if (repo := self.repo(kind, repo_id, revision)) is None:
            return
        folder = repo.folder / (path or "")
        if what != "tree":
            self.json({"id": repo_id, "sha": repo.commit})
        elif folder.is_dir():
            self.json([entry(repo.folder, file) for file in sorted(folder.rglob("*"))])
        else:
            self.error(404, "EntryNotFound", f"{path} does not exist")

    def resolve(self, dataset: str | None, repo_id: str, revision: str, name: str) -> None:
        if (repo := self.repo("datasets" if dataset else "models", repo_id, revision)) is None:
            return
        sent = self.headers["Authorization"]
        if repo.token and sent != f"Bearer {repo.token}":
            self.error(403 if sent else 401, "GatedRepo", f"Access to {repo_id} is restricted")
        elif (repo.folder / name).is_file():
            self.file(repo, (repo.folder / name).read_bytes())
        else:
            self.error(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repo.commit})

    def file(self, repo: Repo, content: bytes) -> None:
        headers = {"ETag": f'"{digest(content)}"', "X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"}
        if (wanted := re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")) is None:
            self.reply(200, content, headers)
            return
        start = int(wanted[1])
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.reply(206, content[start:], headers)

    def json(self, value: object) -> None:
        self.reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def error(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.reply(status, b"", {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})})

    def reply(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_head(status, headers, len(content))
        if self.command == "HEAD":
            return
        self.wfile.write(content[: self.fault.cut])
        if self.fault.cut is not None:
            self.close_connection = True
        if self.fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            socket.close(self.connection.detach())  # at once: the server's own close would first say goodbye


def entry(root: Path, path: Path) -> dict[str, object]:
    """A file or folder as the listing has it."""
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": digest(name.encode()), "size": 0}
    content = path.read_bytes()
    return {"type": "file", "path": name, "oid": digest(content), "size": len(content)}


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


StandInHub.handler = Handler
