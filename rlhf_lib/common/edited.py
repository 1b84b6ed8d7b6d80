"""What a stage was started with, and whether it was edited while the stage ran.

DVC records a stage's params and code as they are when the stage ends, not as they were when it read them: an edit in
between would stand in dvc.lock and in the run cache, with an out that was made without it. The local files that params
name it records as they were when stage inputs hashed them: an edit since then would not stand there, with an out that
was made with it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lib.common import paths
from rlhf_lib.common.dvc_project import GRAPH, changed, declared, file_md5, ignored, look_up
from rlhf_lib.common.terminal import listed

PARAMS = Path("params.yaml")
CODE = ("rlhf_lib", "stages")
SEEN = Path(".dvc/tmp/inputs.json")  # {a local file: [its MD5 sum, bytes, time of change]}, of stage inputs


@dataclass(frozen=True)
class Start:
    """The texts of dvc.yaml and params.yaml, and the hashes of the code, as a stage found them."""

    stage: str
    graph: str
    params: str
    code: Mapping[Path, str | None]

    def edits(self) -> list[str]:
        """The params (`section.key`) and the files of code that dvc.yaml declares for the stage and that are now
        others, and the local files; a `ParamsError` where params.yaml can no longer be read."""
        code, inputs = _code(), other_inputs(self.stage)
        if self.code == code and self.params == _text(PARAMS):
            return inputs
        from rlhf_lib.common.yaml import load_yaml, parse_yaml  # make watch, which ends likewise, has no use for YAML

        old, new = parse_yaml(self.params, PARAMS), load_yaml(PARAMS)
        found, unseen = declared(self.stage, parse_yaml(self.graph, GRAPH), old), ignored()
        names = [name for key in found.get("params", []) for name in changed(key, look_up(old, key), look_up(new, key))]
        files = sorted(
            file
            for file in self.code.keys() | code.keys()
            if self.code.get(file) != code.get(file) and any(file.is_relative_to(dep) for dep in found.get("deps", []))
        )
        code_files = [str(file) for file in files if not unseen.match_file(file)]
        return [*sorted(names), *dict.fromkeys(code_files + inputs)]


_start: Start | None = None


def begin(stage: str) -> None:
    """Remember what the stage, by DVC's name for it, is started with; nothing outside a project. A `SystemExit` of one
    line where a local file is no longer what stage inputs hashed."""
    global _start
    if found := other_inputs(stage):
        raise SystemExit(f"{stage}: edited since stage inputs hashed it: {listed(found)}; dvc repro once more")
    if GRAPH.is_file() and PARAMS.is_file():
        _start = Start(stage, _text(GRAPH), _text(PARAMS), _code())


def tell() -> None:
    """A `SystemExit` of one line where that was edited since."""
    if _start is not None and (found := _start.edits()):
        raise SystemExit(
            f"{_start.stage}: edited while it ran: {listed(found)}; DVC would record results with what they were not "
            "made with. Take the edit back, and dvc repro goes on from the last checkpoint; or keep it, and the stage "
            "begins anew. While dvc exp run --temp runs, in a copy, what git tracks is free for edits"
        )


def other_inputs(stage: str) -> list[str]:
    """The local files of the stage that are no longer what stage inputs hashed, or are gone."""
    listed, seen = _json(Path(paths.INPUTS, f"{stage.partition('@')[0]}.json")), _json(SEEN)
    return [file for file, md5 in listed.items() if seen.get(file) != [md5, *look(file)] and _md5(file) != md5]


def look(file: str) -> list[int]:
    """What tells of a file, without reading it, that it is as it was: bytes, nanoseconds; nothing where it is gone."""
    try:
        found = os.stat(file)
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _md5(file: str | Path) -> str | None:
    try:
        return file_md5(file)
    except OSError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _code() -> dict[Path, str | None]:
    """The hash of each file of code, but of what Python compiled."""
    found = {}
    for folder in CODE:
        for place, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in names:
                file = Path(place, name)
                found[file] = _md5(file)
    return found
