"""A preset as the values that it sets: read, laid over params, and written as flags for `dvc exp run`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError, load_yaml, parse_value, parse_yaml

PRESETS = Path("presets")
OPEN = ("prepare", "mixture")  # the one mapping whose names are the user's own

Leaf = tuple[tuple[str, ...], Any]


def leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """The (path, value) of every value in nested mappings."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def names() -> list[str]:
    """The presets that there are."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def read_preset(name: str) -> list[Leaf]:
    """What a preset sets; a `ParamsError` where there is none of that name."""
    if name not in names():
        raise ParamsError(f"no preset {name!r}; there are: demo, {', '.join(names())}")
    return list(leaves(load_yaml(PRESETS / f"{name}.yaml")))


def parse_setting(text: str) -> Leaf:
    """`section.key=value` as a path and a value read as YAML; a `ParamsError` for anything else."""
    name, equals, value = text.partition("=")
    if not equals or not name or not text.isprintable():
        raise ParamsError(f"{text}: not of the form section.key=value, on one line")
    return tuple(name.split(".")), parse_yaml(f"value: {value}", Path(name))["value"]


def overlay(params: Any, settings: Iterable[Leaf], origin: str) -> list[tuple[str, Any, Any]]:
    """Set the leaves in `params`, in place; what changed, as (name, before, after). A key must be there already."""
    changed = []
    for path, value in settings:
        name, section = ".".join(path), params
        new = path[: len(OPEN)] == OPEN
        for key in path[:-1]:
            if new and isinstance(section, dict):
                section.setdefault(key, {})
            section = section.get(key) if isinstance(section, dict) else None
        if not isinstance(section, dict) or not (new or path[-1] in section):
            raise ParamsError(f"{origin}: {name}: no such key in {PARAMS_FILE}; correct its name")
        if not same(section.get(path[-1]), value):
            changed.append((name, section.get(path[-1]), value))
            section[path[-1]] = value
    return changed


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same param: 1 and 1.0 are, 1 and true are not."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def flat(params: dict[str, Any]) -> dict[str, Any]:
    """The values of params by their dotted names."""
    return {".".join(map(str, path)): value for path, value in leaves(params)}


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between two sets of params, by name; `...` stands for a key that is not there."""
    one, other = flat(before), flat(after)
    every = {name: (one.get(name, ...), other.get(name, ...)) for name in {**one, **other}}
    return {name: pair for name, pair in every.items() if not same(*pair)}


def flags(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What makes params `before` those `after`, as flags for the shell and Hydra's grammar."""
    kept = after[OPEN[0]][OPEN[1]]
    gone = [name for name in before[OPEN[0]][OPEN[1]] if name not in kept]
    changes = {f"{'.'.join(OPEN)}.{name}": ... for name in gone}
    for name, (_, value) in difference(before, after).items():
        path = tuple(name.split("."))
        if path[: len(OPEN)] != OPEN or path[len(OPEN)] in kept:
            changes[name] = value
    return [flag(name, value) for name, value in changes.items()]


def flag(name: str, value: Any) -> str:
    """`-S name=value` as the shell and Hydra's grammar read it; `...` takes a name out of the mixture."""
    of_user = tuple(name.split("."))[: len(OPEN)] == OPEN
    text = f"~{name}" if value is ... else f"{'++' if of_user else ''}{name}={_hydra(value)}"
    return "-S " + shlex.quote(text)


def _hydra(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_hydra, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str) and not (re.fullmatch(r"[\w./*-]+", value) and isinstance(parse_value(value), str)):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)
