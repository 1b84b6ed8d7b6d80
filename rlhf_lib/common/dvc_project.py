"""The project as DVC sees it: what dvc.yaml declares for a stage, which files are ignored, how others are hashed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from configparser import ConfigParser
from configparser import Error as NoConfig
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rlhf_lib.common.start import GO_ON

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

GRAPH = Path("dvc.yaml")
CONFIGS = (Path(".dvc/config.local"), Path(".dvc/config"))  # the first that names the cache has it
IGNORED = Path(".dvcignore")
PLACE = re.compile(r"\$\{\s*([\w.-]+)\s*\}")  # what dvc.yaml leaves to params, or to the items of foreach


def declared(stage: str, graph: Mapping[str, Any], params: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """What dvc.yaml, read as `graph`, has for a stage by DVC's name for it (`measure@ppo` is one of several), with its
    item, and what `${section.key}` names in params; nothing where it has no such stage."""
    name, _, key = stage.partition("@")
    entry: Mapping[str, Any] = graph.get("stages", {}).get(name, {})
    if "do" not in entry:
        return dict(filled(entry, params))
    items = entry["foreach"]
    item = filled(items.get(key), params) if isinstance(items, Mapping) else key
    return dict(filled(entry["do"], {**params, "key": key, "item": item}))


def filled(value: Any, names: Mapping[str, Any]) -> Any:
    """A part of dvc.yaml with what each `${item}` and the like names; what names nothing stays as it is."""
    if isinstance(value, Mapping):
        return {filled(key, names): filled(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [filled(part, names) for part in value]
    if isinstance(value, str):
        return PLACE.sub(lambda place: str(look_up(names, place[1], place[0])), value)
    return value


def look_up(names: Any, dotted: str, default: Any = None) -> Any:
    """What `section.key` names among nested mappings."""
    for key in dotted.split("."):
        if not isinstance(names, Mapping) or key not in names:
            return default
        names = names[key]
    return names


def changed(name: str, before: Any, now: Any) -> list[str]:
    """The params under a name as dvc.yaml has it, a section or section.key, whose values differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return [f"{name}.{key}" for key in {**before, **now} if before.get(key) != now.get(key)]
    return [name] if before != now else []


def ignored() -> GitIgnoreSpec:
    """What matches the paths, from the project's root, that DVC does not see: what Python and editors leave behind."""
    from pathspec import GitIgnoreSpec

    try:
        lines = IGNORED.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = ["__pycache__/"]
    return GitIgnoreSpec.from_lines(lines)


def file_md5(path: str | Path) -> str:
    """DVC's hash of a file's bytes. An `OSError` where it cannot be read."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def md5(path: str | Path) -> str | None:
    """DVC's hash of a file or a folder, whose ends in .dir; None where there is neither."""
    path = Path(path)
    if path.is_file():
        return file_md5(path)
    if not path.is_dir():
        return None
    unseen = ignored()
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    entries = [
        {"md5": file_md5(file), "relpath": name} for name, file in sorted(files.items()) if not unseen.match_file(file)
    ]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def cache() -> Path:
    """DVC's cache, as the project's configuration names it."""
    for config in CONFIGS:
        parser = ConfigParser(interpolation=None, strict=False)
        with suppress(OSError, NoConfig, UnicodeDecodeError):  # whatever DVC itself cannot read, it tells
            parser.read_string(config.read_text(encoding="utf-8"))
        if folder := parser.get("cache", "dir", fallback=""):
            return config.parent / folder
    return Path(".dvc/cache")


def cache_fault() -> str | None:
    """What to say where this user may not write into the cache: DVC does so once a stage has ended, and loses its
    work if it cannot. None where all is well, or no cache is there yet."""
    folder = cache() / "files/md5"
    for place in (folder, *folder.glob("[0-9a-f][0-9a-f]")):
        if place.is_dir() and not os.access(place, os.W_OK):
            return (
                f"{place}: this user may not write into DVC's cache, where what a stage makes goes; get the right to "
                "(of several users each: dvc config cache.shared group), or have another: dvc cache dir --local DIR"
            )
    return None


def no_room(outs: Iterable[str], freed: Path) -> str | None:
    """What to say where the disk of the cache has no room for outs, which DVC copies there once their stage has ended;
    None where it has. freed: a folder that is deleted before that."""
    folder = next(place for place in (cache(), *cache().resolve().parents) if place.is_dir())
    needed, room = sum(_size(Path(out)) for out in outs), shutil.disk_usage(folder).free
    if freed.stat().st_dev == folder.stat().st_dev:
        room += _size(freed)
    if needed <= room:
        return None
    return (
        f"{folder}: the disk of DVC's cache has {room / 1e6:,.1f} MB left, and the outs take {needed / 1e6:,.1f} "
        f"MB; free some space: {GO_ON}"
    )


def _size(path: Path) -> int:
    """The bytes of a file, or of all in a folder; 0 where there is neither."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
