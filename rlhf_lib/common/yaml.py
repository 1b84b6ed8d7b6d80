"""YAML as DVC reads it: version 1.2.

PyYAML alone follows YAML 1.1 and reads `2e-05` (which is what `dvc exp run -S sft.learning_rate=2e-5` writes) as a
string and `no` as false.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

MAX_DEPTH, MAX_VALUES = 20, 100_000  # of a file
MAX_BYTES = 1_000_000  # of a file: PyYAML reads a fifth of that in a second
MAX_MERGED = 10_000  # keys of a mapping, with those that it merges (<<)
MERGE_MARK = re.compile(r"^(<{7}|\|{7}|={7}|>{7})(?= |\r?$)", re.MULTILINE)  # git's, around two sides that differ


class ParamsError(SystemExit):
    """A fault in the params, told in one line; ends the process with exit code 1."""

    def __init__(self, text: str) -> None:
        super().__init__("".join(c if c.isprintable() else " " for c in " ".join(text.splitlines())))


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the floats and booleans of YAML 1.2, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(str(key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, count in keys.items():
            if count > 1:
                line = node.start_mark.line + 1
                raise yaml.YAMLError(f"{key} stands twice in the block at line {line}; remove one")
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Take in what a mapping merges (<<); each of a few lines can double what the one above it holds."""
        merged = [value for key, value in node.value if key.tag == "tag:yaml.org,2002:merge"]
        many = any(len(value.value) > 100 for value in merged if isinstance(value, yaml.SequenceNode))
        if not many:
            super().flatten_mapping(node)
        if many or (merged and len(node.value) > MAX_MERGED):
            raise yaml.YAMLError(f"the block at line {node.start_mark.line + 1} merges too much (<<); write it out")


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("float", "bool", "int")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(0b[01_]+|0o?[0-7_]+|[0-9][0-9_]*|0x[0-9a-fA-F_]+)$"),
    list("-+0123456789"),
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _int(loader: Loader, node: yaml.ScalarNode) -> int:
    text = node.value.replace("_", "")
    return int(text, 0 if text.lstrip("+-")[:2] in ("0b", "0o", "0x") else 10)


Loader.add_constructor("tag:yaml.org,2002:int", _int)


def parse_value(text: str) -> Any:
    """The value that a YAML text holds, the caller's own."""
    return deepcopy(_parsed(text))


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """A stage reads a section at a time, each from the same text, and PyYAML is slow. Its quicker parser, in C, dies
    of brackets nested deeply."""
    return yaml.load(text, Loader)  # noqa: S506 -- a SafeLoader


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """The mapping that the text of the YAML file `path` holds; a broken one is a `ParamsError`."""
    try:
        parsed = parse_value(text)
    except RecursionError:
        raise ParamsError(f"{path}: not valid YAML: nested too deeply; remove the brackets or indents") from None
    except yaml.YAMLError as error:
        if mark := MERGE_MARK.search(text):
            line = text.count("\n", 0, mark.start()) + 1
            raise ParamsError(f"{path}: line {line}: a mark of git's merge; keep one side, without the marks") from None
        raise ParamsError(f"{path}: not valid YAML: {_short(error)}") from None
    except Exception as error:  # PyYAML raises whatever its parts do for a value that is none of its tag
        raise ParamsError(f"{path}: not valid YAML: {type(error).__name__}: {_short(error)}") from None
    if not isinstance(parsed, dict):
        raise ParamsError(f"{path}: must hold a mapping of sections")
    _check_size(parsed, path)
    return parsed


def _short(error: Exception) -> str:
    return " ".join(str(error).split()).replace('in "<unicode string>", ', "in ")[:500]


def _check_size(parsed: Any, path: Path) -> None:
    """Refuse what is nested too deeply, or too large once its aliases are followed: a few lines can hold either."""
    level: list[Any] = [parsed]
    values = 0
    for _ in range(MAX_DEPTH):
        inner = (value.values() if isinstance(value, Mapping) else value for value in level)
        level = []
        for items in inner:
            if not isinstance(items, str):
                level += [item for item in items if isinstance(item, Mapping | list | tuple | set)]
                values += len(items)
            if values > MAX_VALUES:
                raise ParamsError(f"{path}: holds more than {MAX_VALUES} values; remove its aliases (*name)")
        if not level:
            return
    raise ParamsError(f"{path}: nested more than {MAX_DEPTH} deep, or within itself; remove what is nested")


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; a missing or broken file is a `ParamsError`."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, /dev/zero be read for ever
            raise ParamsError(f"{path}: is no regular file; put one in its place")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ParamsError(f"{path}: is larger than {MAX_BYTES:,} bytes; remove what is no param")
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run from the project's root") from None
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read: {error}") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: cannot be read: {error}; save it as UTF-8") from None
    return parse_yaml(text, path)
