"""What a stage was started with, and whether it was edited while the stage ran.

DVC records a stage's params and code as they are when the stage ends, not as they were when it read them: an edit in
between would stand in dvc.lock and in the run cache, with an out that was made without it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAPH, PARAMS = Path("dvc.yaml"), Path("params.yaml")
CODE = ("rlhf_lib", "stages")


@dataclass(frozen=True)
class Start:
    """The texts of dvc.yaml and params.yaml, and the hashes of the code, as a stage found them."""

    stage: str
    graph: str
    params: str
    code: Mapping[Path, str]

    def edits(self) -> list[str]:
        """The params (`section.key`) and the files of code that dvc.yaml declares for the stage and that are now
        others; a `ParamsError` where params.yaml can no longer be read."""
        code = _code()
        if self.code == code and self.params == _text(PARAMS):
            return []
        from rlhf_lib.common.yaml import load_yaml, parse_yaml  # make watch, which ends likewise, has no use for YAML

        declared = parse_yaml(self.graph, GRAPH).get("stages", {}).get(self.stage.partition("@")[0], {})
        declared = declared.get("do", declared)
        old, new = parse_yaml(self.params, PARAMS), load_yaml(PARAMS)
        names = [name for key in declared.get("params", []) for name in _changed(key, old, new)]
        files = sorted(
            file
            for file in self.code.keys() | code.keys()
            if self.code.get(file) != code.get(file)
            and any(file.is_relative_to(dep) for dep in declared.get("deps", []))
        )
        return sorted(names) + [str(file) for file in files if not ignored().match_file(file)]


_start: Start | None = None


def begin(stage: str) -> None:
    """Remember what the stage, by DVC's name for it, is started with; nothing outside a project."""
    global _start
    if GRAPH.is_file() and PARAMS.is_file():
        _start = Start(stage, _text(GRAPH), _text(PARAMS), _code())


def tell() -> None:
    """A `SystemExit` of one line where that was edited since."""
    if _start is not None and (found := _start.edits()):
        names = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise SystemExit(
            f"{_start.stage}: edited while it ran: {names}; DVC would record that with results made without "
            "it. Take the edit back, and dvc repro goes on from the last checkpoint; or keep it, and the stage "
            "begins anew. While dvc exp run --temp runs, in a copy, the project is free for edits"
        )


def ignored() -> Any:
    """What matches the paths that DVC does not see: what Python and editors leave behind."""
    from pathspec import GitIgnoreSpec

    try:
        lines = Path(".dvcignore").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = ["__pycache__/"]
    return GitIgnoreSpec.from_lines(lines)


def _changed(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """The values under a name as dvc.yaml has it, a section or section.key, that differ."""
    before, after = _at(key, old), _at(key, new)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from (f"{key}.{name}" for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    elif before != after:
        yield key


def _at(key: str, params: Any) -> Any:
    for part in key.split("."):
        params = params.get(part) if isinstance(params, Mapping) else None
    return params


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _code() -> dict[Path, str]:
    """The hash of each file of code, but of what Python compiled."""
    found = {}
    for folder in CODE:
        for place, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in names:
                file = Path(place, name)
                found[file] = hashlib.blake2b(_text(file).encode(), digest_size=16).hexdigest()
    return found
