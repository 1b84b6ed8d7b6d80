"""DVC's cache on the disk: its objects, what is in its folders, and taking objects out of it.

An object is a file named by its hash; one whose name ends with .dir lists the files of a folder. DVC puts a folder's
files into the cache before their list, so that a list says the folder is whole. They leave it the other way round: the
lists first, kept beside the cache until their files are gone, since after a kill nothing else would know these files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

FOLDER = ".dir"  # how the hash of a folder's list ends
DOOMED = Path(".dvc/tmp/prune")


class Cache:
    """The cache in a folder (DVC's files/md5), and the lists that an earlier prune has not finished with."""

    def __init__(self, folder: Path, doomed: Path = DOOMED) -> None:
        self.folder, self.doomed = folder, doomed
        self.sizes: dict[str, int] = {}  # bytes of every object
        self.freed: dict[str, int] = {}  # bytes that its going frees: none where a hard link leads to it
        self.left = {file.name for file in doomed.glob(f"*{FOLDER}")}
        self._trees: dict[str, list[str]] = {}
        for file in folder.glob("[0-9a-f][0-9a-f]/*"):
            with suppress(OSError):
                found = file.stat()
                name = file.parent.name + file.name
                self.sizes[name] = found.st_size
                self.freed[name] = found.st_size if found.st_nlink == 1 else 0

    def path(self, name: str) -> Path:
        """Where an object lies."""
        return self.folder / name[:2] / name[2:]

    def closure(self, names: Iterable[str]) -> set[str]:
        """The objects of these names that are there, with the files of the folders among them."""
        named = set(names)
        for name in [name for name in named if name.endswith(FOLDER)]:
            named.update(self._members(name))
        return named & self.sizes.keys()

    def _members(self, name: str) -> list[str]:
        if name not in self._trees:
            self._trees[name] = []
            for file in (self.path(name), self.doomed / name):
                with suppress(OSError, ValueError, KeyError, TypeError):
                    listed = json.loads(file.read_text(encoding="utf-8"))
                    self._trees[name] = [entry["md5"] for entry in listed]
                    break
        return self._trees[name]

    def size(self, names: Iterable[str]) -> int:
        """Bytes of objects."""
        return sum(self.sizes[name] for name in names)

    def restore(self, kept: Iterable[str]) -> None:
        """Put back the lists that a killed prune took and that are to stay now, where all of their files are there."""
        for name in self.left.intersection(kept):
            if name not in self.sizes and self.sizes.keys() >= set(self._members(name)):
                self.path(name).parent.mkdir(exist_ok=True)
                shutil.move(self.doomed / name, self.path(name))

    def remove(self, names: Iterable[str]) -> int:
        """Take objects out of the cache; the bytes that this has freed."""
        there = sorted(names)
        freed = sum(self.freed[name] for name in there)
        lists = [name for name in there if name.endswith(FOLDER)]
        with suppress(OSError):  # of a full disk, which has no room for the folder: then they just go
            self.doomed.mkdir(parents=True, exist_ok=True)
        for name in lists:
            if self.doomed.is_dir():
                shutil.move(self.path(name), self.doomed / name)
            else:
                self.path(name).unlink(missing_ok=True)
        for name in (name for name in there if not name.endswith(FOLDER)):
            self.path(name).unlink(missing_ok=True)
        shutil.rmtree(self.doomed, ignore_errors=True)
        return freed
