"""The stand-in hub as a place to upload to: repositories that are made, files that are put, and commits of both."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import standin_hub
import yaml
from standin_hub import StandInHub

WRITES, READS = "hf_writes", "hf_reads"  # the tokens that it knows


@dataclass
class Uploaded:
    """A repository: its visibility, and the files of its last commit."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class UploadHub(StandInHub):
    """`uploads` has each repository by its id; `stored` the large files by their hash."""

    uploads: dict[str, Uploaded] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)


class Handler(standin_hub.Handler):
    owner: UploadHub

    def take(self) -> None:
        self.fault = self.owner.note(f"{self.command} {self.path}")
        self.body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if self.fault.status:
            self.error(self.fault.status, "", "trouble")
        elif self.path.startswith("/store/"):
            self.store(self.path.rpartition("/")[2])
        elif token not in (WRITES, READS):
            self.error(401, "", "Invalid credentials in Authorization header")
        elif self.path == "/api/validate-yaml":
            self.validate(json.loads(self.body)["content"])
        elif token == READS:
            self.error(403, "", "You don't have the rights to create a model under the namespace")
        else:
            self.write()

    do_POST = do_PUT = take

    def write(self) -> None:
        """What needs the right to write."""
        if self.path == "/api/repos/create":
            self.create(json.loads(self.body))
        elif self.path.endswith("/info/lfs/objects/batch"):
            self.json({"transfer": "basic", "objects": [self.place(it) for it in json.loads(self.body)["objects"]]})
        elif "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(self.body)["files"]]
            self.json({"files": [upload_mode(name) for name in names]})
        elif "/commit/" in self.path:
            self.commit(self.path.removeprefix("/api/models/").partition("/commit/")[0])
        else:
            self.error(404, "", "no such address")

    def validate(self, card: str) -> None:
        """The head must be a mapping whose license the hub knows."""
        head = yaml.safe_load(card.split("---\n")[1])
        wrong = not isinstance(head, dict) or head.get("license") not in ("unknown", "other", "mit", "apache-2.0")
        errors = [{"message": '"license" must be one of a list'}] if wrong else []
        content = json.dumps({"errors": errors, "warnings": []}).encode()
        self.reply(400 if errors else 200, content, {"Content-Type": "application/json"})

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.owner.uploads:
            content = {"error": "You already created this model repo", "url": f"{self.owner.url}/{name}"}
            self.reply(409, json.dumps(content).encode(), {"Content-Type": "application/json"})
            return
        self.owner.uploads[name] = Uploaded(wanted.get("visibility") == "private")
        self.json({"url": f"{self.owner.url}/{name}", "id": name})

    def place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Where a large file is to be put."""
        href = f"{self.owner.url}/store/{wanted['oid']}"
        return {"oid": wanted["oid"], "size": wanted["size"], "actions": {"upload": {"href": href}}}

    def store(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.owner.stored[oid] = self.body
        self.reply(200, b"", {})

    def commit(self, name: str) -> None:
        files = self.owner.uploads[name].files
        for line in self.body.splitlines():
            given = json.loads(line)
            value = given["value"]
            if given["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif given["key"] == "lfsFile":
                files[value["path"]] = self.owner.stored[value["oid"]]
        self.json({"success": True, "commitOid": "c" * 40, "commitUrl": f"{self.owner.url}/{name}/commit/{'c' * 40}"})

    def api(self, kind: str, repo_id: str, what: str | None, revision: str | None, path: str | None) -> None:
        found = self.owner.uploads.get(repo_id)
        if found is None:
            super().api(kind, repo_id, what, revision, path)
        else:
            self.json({"id": repo_id, "sha": "c" * 40, "private": found.private})


def upload_mode(name: str) -> dict[str, Any]:
    """Whether a file is large, by its name."""
    return {
        "path": name,
        "uploadMode": "lfs" if name.endswith(".safetensors") else "regular",
        "shouldIgnore": False,
    }


UploadHub.handler = Handler
