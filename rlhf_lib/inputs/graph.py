"""The stages of dvc.yaml, what they read and what they make. DVC's own reader takes a second to import."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import Any

from rlhf_lib.common.dvc_project import PLACE, filled, look_up
from rlhf_lib.common.yaml import load_yaml

DVC_FILE = Path("dvc.yaml")
MOST = 10_000  # stages of a matrix


@dataclass(frozen=True)
class Stage:
    """deps, outs: paths as dvc.yaml has them, normalised; metrics and plots are outs too. shown: these alone."""

    deps: tuple[str, ...]
    outs: tuple[str, ...]
    shown: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Graph:
    """stages: by DVC's names, such as sft, or evaluate@ppo."""

    stages: Mapping[str, Stage]

    @classmethod
    def read(cls, params: Mapping[str, Any], path: Path = DVC_FILE) -> Graph:
        """The graph that a dvc.yaml describes with these params; that of no file is empty.

        Raises `ParamsError` where it is not valid YAML. What DVC would refuse is left out: DVC tells.
        """
        if not path.exists():
            return cls({})
        declared = load_yaml(path).get("stages")
        declared = declared if isinstance(declared, Mapping) else {}
        return cls(
            {str(name): stage for key, entry in declared.items() for name, stage in _instances(key, entry, params)}
        )

    def makers(self) -> Iterator[tuple[str, str]]:
        """Each out, and the stage that makes it."""
        return ((out, name) for name, stage in self.stages.items() for out in stage.outs)

    def way(self, first: str, last: str) -> list[str] | None:
        """The stages from `first` to `last`, each of which reads an out of the one before; None if there is no way."""
        before: dict[str, str | None] = {first: None}
        todo = deque([first])
        while todo:
            name = todo.popleft()
            if name == last:
                return list(_back(before, name))[::-1]
            for follower in self._followers(name):
                if follower not in before:
                    before[follower] = name
                    todo.append(follower)
        return None

    def _followers(self, name: str) -> list[str]:
        outs = self.stages[name].outs
        return [
            other
            for other, stage in self.stages.items()
            if any(overlap(dep, out) for dep in stage.deps for out in outs)
        ]


def overlap(one: str, other: str) -> bool:
    """Whether one of two paths is the other, or lies in it."""
    return lies_in(one, other) or lies_in(other, one)


def lies_in(path: str, folder: str) -> bool:
    """Whether a path is `folder`, or lies in it; both are normalised."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _back(before: Mapping[str, str | None], name: str | None) -> Iterator[str]:
    while name is not None:
        yield name
        name = before[name]


def _instances(name: str, entry: Any, params: Mapping[str, Any]) -> Iterator[tuple[str, Stage]]:
    """The stages of an entry: itself, or one for each item of its `foreach`, or of its `matrix`."""
    if not isinstance(entry, Mapping):
        return
    if isinstance(body := entry.get("do"), Mapping):
        items = _named(entry.get("foreach"), params)
        pairs = (
            items.items() if isinstance(items, Mapping) else [(i, i) for i in items] if isinstance(items, list) else []
        )
        for key, item in pairs:
            yield f"{name}@{key}", _stage(body, {**params, "key": key, "item": filled(item, params)})
    elif isinstance(matrix := entry.get("matrix"), Mapping):
        lists = [value if isinstance(value := _named(axis, params), list) else [] for axis in matrix.values()]
        for values in islice(product(*lists), MOST):
            item = dict(zip(matrix, values, strict=True))
            yield f"{name}@{'-'.join(map(str, values))}", _stage(entry, {**params, "item": item})
    else:
        yield name, _stage(entry, params)


def _named(value: Any, params: Mapping[str, Any]) -> Any:
    """What `${place}` alone stands for; any other value is itself, and nothing is an empty list."""
    place = PLACE.fullmatch(value) if isinstance(value, str) else None
    return (look_up(params, place[1]) if place else value) or []


def _stage(entry: Mapping[str, Any], names: Mapping[str, Any]) -> Stage:
    wdir = str(entry.get("wdir", "."))

    def paths(*keys: str) -> tuple[str, ...]:
        listed = [item for key in keys if isinstance(entry.get(key), list) for item in entry[key]]
        found = [text for item in listed for text in (item if isinstance(item, Mapping) else [item])]
        return tuple(
            os.path.normpath(os.path.join(*(filled(str(part), names) for part in (wdir, text)))) for text in found
        )

    return Stage(paths("deps"), paths("outs", "metrics", "plots"), paths("metrics", "plots"))
