"""A preset as the values that it sets: read, laid over params, and written as flags for `dvc exp run`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError, load_yaml, parse_yaml

PRESETS = Path("presets")
OPEN = ("mixture", "lr_scheduler_kwargs")  # the mappings of sections whose names are the user's own
_WORD = re.compile(r"[a-z_][\w./-]*", re.ASCII | re.IGNORECASE)  # what Hydra takes for a text without quotes, but for
_NO_WORDS = ("true", "false", "null", "nan", "inf")

Leaf = tuple[tuple[str, ...], Any]


def leaves(tree: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """The (path, value) of every value in nested mappings."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def is_open(path: tuple[str, ...]) -> bool:
    """Whether the path's last key may be new: those of a section's mapping with names of the user's own."""
    return len(path) > 2 and path[1] in OPEN


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
        new = is_open(path)
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
    changes: dict[str, Any] = {}
    for section, values in before.items():
        for key in OPEN if isinstance(values, dict) else ():
            gone = [name for name in values.get(key, ()) if name not in after[section][key]]
            changes |= dict.fromkeys((f"{section}.{key}.{name}" for name in gone), ...)
    for name, (_, value) in difference(before, after).items():
        section, *keys = name.split(".")
        if not is_open((section, *keys)) or keys[1] in after[section][keys[0]]:
            changes[name] = value
    return [flag(name, value) for name, value in changes.items()]


def flag(name: str, value: Any) -> str:
    """`-S name=value` as the shell and Hydra's grammar read it; `...` takes a name of the user's out."""
    of_user = is_open(tuple(name.split(".")))
    text = f"~{name}" if value is ... else f"{'++' if of_user else ''}{name}={hydra(value)}"
    return "-S " + shlex.quote(text)


def hydra(value: Any) -> str:
    """A value as Hydra's grammar writes it, behind the = of an override."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(hydra, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str) and (not _WORD.fullmatch(value) or value.lower() in _NO_WORDS):
        return _quoted(value)
    return str(value)


def _quoted(text: str) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString  # a tenth of a second

    return QuotedString(text, Quote.single).with_quotes()
