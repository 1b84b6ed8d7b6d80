"""Put right what a kill left half-written: `python -m rlhf_lib.repair`, which `make repro` runs first.

DVC writes dvc.lock and its own lock files in place. A kill within that moment cuts them short, and then every DVC
command fails. A broken file is kept beside the repaired one; what it had recorded since the last commit, the next
`dvc repro` finds again in DVC's run cache. Two branches with results of their own leave it as broken, by a merge.

A full disk cuts short what Python compiles too, and it reads no such module again. `make repro` runs this file as a
script, which needs none of the project's modules. And DVC leaves behind what it had not copied whole: it looks past
such files, but they take room.
"""

from __future__ import annotations

import argparse
import json
import marshal
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

LOCK = Path("dvc.lock")
RWLOCK = Path(".dvc/tmp/rwlock")
_CODE = ("rlhf_lib", "stages", "rewards", "__pycache__")  # where what a run imports lies
_COPIED = ("data", "metrics", "models", "report", ".dvc/cache")  # where DVC copies to
_COPY = re.compile(r"\.[\w-]{22}\.tmp")  # its name for a file that is not whole yet
_MARK = b"\n<<<<<<< "  # git's, above the first of two sides that it could not merge
_HEADER = 16  # bytes of a compiled module before its code
IDLE = 60.0  # seconds in which nobody wrote into a copy that nobody makes any more
PATIENCE = 1.0  # seconds; DVC needs a quarter of one to write either file
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def repair() -> list[str]:
    """Repair dvc.lock, DVC's record of who reads and writes what, and compiled modules; a line on what was broken."""
    told = [f"{file}: it was cut short; Python compiles it anew" for file in _remove_cut_modules()]
    told += [f"{file}: DVC had left it half-written; it is removed" for file in _remove_left_copies()]
    if _is_broken(LOCK, is_lock):
        what = "it holds git's marks of a merge" if _MARK in LOCK.read_bytes() else "it was cut short"
        kept = _keep(LOCK)
        told.append(f"{LOCK}: {what} (kept as {kept}); {_restore(LOCK)}")
    if _is_broken(RWLOCK, is_rwlock):
        kept = _keep(RWLOCK)
        told.append(f"{RWLOCK}: it was cut short (kept as {kept}); DVC makes it anew")
    told += [f"{RWLOCK}: process {pid}, which was killed, is taken out of it" for pid in _forget_zombies()]
    return told


def is_lock(text: str) -> bool:
    """Whether a text is a whole dvc.lock: stages, each with its command and with the hashes of its files."""
    try:
        data = yaml.load(text, _LOADER)  # noqa: S506
    except yaml.YAMLError:
        return False
    if not isinstance(data, Mapping) or data.get("schema") != "2.0" or not isinstance(data.get("stages"), Mapping):
        return False
    return text.endswith("\n") and all(_is_stage(stage) for stage in data["stages"].values())


def _is_stage(stage: Any) -> bool:
    if not isinstance(stage, Mapping) or not isinstance(stage.get("cmd"), str | list):
        return False
    files, params = [stage.get(key, []) for key in ("deps", "outs")], stage.get("params", {})
    if not all(isinstance(part, list) for part in files) or not isinstance(params, Mapping):
        return False
    return all(isinstance(values, Mapping) for values in params.values()) and all(
        isinstance(file, Mapping) and isinstance(file.get("path"), str) and len(file) > 1
        for part in files
        for file in part
    )


def is_rwlock(text: str) -> bool:
    """Whether a text is what DVC writes of the processes that read and write in the project."""
    try:
        return all(isinstance(entry["pid"], int) for entry in _entries(json.loads(text)))
    except (ValueError, AttributeError, TypeError, KeyError):
        return False


def _entries(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The processes that DVC's record names: a writer of each path, and readers."""
    readers = [entry for entries in record.get("read", {}).values() for entry in entries]
    return [*record.get("write", {}).values(), *readers]


def _forget_zombies() -> list[int]:
    """Take processes out of DVC's record that have ended, but that nobody has asked for their end, as in a container
    whose first process never does: DVC would wait for them for ever. Those that are gone it takes out itself."""
    if not RWLOCK.is_file():
        return []
    record = json.loads(RWLOCK.read_text(encoding="utf-8"))
    write, read = record.get("write", {}), record.get("read", {})
    ended = {entry["pid"] for entry in _entries(record) if _is_zombie(entry["pid"])}
    if ended:
        write = {path: entry for path, entry in write.items() if entry["pid"] not in ended}
        read = {path: [entry for entry in entries if entry["pid"] not in ended] for path, entries in read.items()}
        RWLOCK.write_text(json.dumps({"write": write, "read": read}), encoding="utf-8")
    return sorted(ended)


def _is_zombie(pid: int) -> bool:
    import psutil  # DVC's own

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _remove_cut_modules() -> list[Path]:
    """Take away the project's modules that Python compiled and did not write whole."""
    cut = []
    for file in sorted(
        file for folder in _CODE for file in Path(folder).glob(f"**/*.{sys.implementation.cache_tag}.pyc")
    ):
        try:
            marshal.loads(file.read_bytes()[_HEADER:])  # read, as Python does, and not run
        except (EOFError, ValueError, TypeError):
            file.unlink(missing_ok=True)
            cut.append(file)
        except OSError:
            continue
    return cut


def is_copy(name: str) -> bool:
    """Whether a file's name is DVC's for one that it has not copied whole."""
    return _COPY.fullmatch(name) is not None


def _remove_left_copies() -> list[Path]:
    """Take away what DVC began to copy, and does no longer."""
    left = []
    for file in sorted(file for folder in _COPIED for file in Path(folder).rglob(".*.tmp") if is_copy(file.name)):
        with suppress(OSError):  # a DVC that is at work has just made it whole
            if time.time() - file.stat().st_mtime > IDLE:
                file.unlink()
                left.append(file)
    return left


def _is_broken(file: Path, is_whole: Callable[[str], bool]) -> bool:
    """Whether a file is there, is not whole, and stays so: a DVC that is at work here may be writing it just now."""
    while file.is_file() and not _holds(file, is_whole):
        found = file.stat()
        time.sleep(PATIENCE)
        if file.is_file() and (file.stat().st_size, file.stat().st_mtime_ns) == (found.st_size, found.st_mtime_ns):
            return True
    return False


def _holds(file: Path, is_whole: Callable[[str], bool]) -> bool:
    try:
        return is_whole(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        return False


def _keep(file: Path) -> Path:
    """Move a broken file aside, under the first name that is free."""
    number = 1
    while (kept := file.with_name(f"{file.name}.broken-{number}")).exists():
        number += 1
    return file.rename(kept)


def _restore(file: Path) -> str:
    """Bring the last commit's file back, where it has a whole one; what was done."""
    try:
        found = subprocess.run(["git", "show", f"HEAD:./{file}"], capture_output=True, text=True, check=False)
    except OSError:
        return "dvc repro writes it anew"
    if found.returncode or not is_lock(found.stdout):
        return "dvc repro writes it anew"
    file.write_text(found.stdout, encoding="utf-8")
    return "the last commit's is back, and dvc repro brings it up to date"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_lib.repair", description=__doc__)
    parser.parse_args(arguments)
    for line in repair():
        print(f"repaired: {line}")


if __name__ == "__main__":
    main()
