"""Apply a preset to params.yaml, or print it as flags for `dvc exp run`.

    python -m rlhf_lib.preset                           list the presets
    python -m rlhf_lib.preset gpt2                      rewrite params.yaml, comments kept, and print what changed
    python -m rlhf_lib.preset gpt2 --flags              print -S flags instead, and change nothing
    python -m rlhf_lib.preset local 'load.sources=[{reader: file, path: my.jsonl}]'    set more keys with it

A preset holds only what differs from params.yaml as it is in git; `git checkout params.yaml` goes back to the demo.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode, SequenceNode
from ruamel.yaml.representer import RoundTripRepresenter

from rlhf_lib.check import check_all
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError, load_yaml, parse_value, parse_yaml

PRESETS = Path("presets")
OPEN = ("mixture", "lr_scheduler_kwargs")  # the mappings of sections that params.yaml gives no names

Leaf = tuple[tuple[str, ...], Any]


class Representer(RoundTripRepresenter):
    """Writes null as such, and the lists that a preset sets on one line: in a block, the comment of the next key would
    come before their items."""

    def represent_null(self, _: None) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")

    def represent_list_on_a_line(self, items: list[Any]) -> SequenceNode:
        flow = not any(isinstance(item, dict) for item in items)
        return self.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=flow)


Representer.add_representer(type(None), Representer.represent_null)
Representer.add_representer(list, Representer.represent_list_on_a_line)


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


def parse_setting(text: str) -> Leaf:
    """`section.key=value` as a path and a value read as YAML; a `ParamsError` for anything else."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ParamsError(f"{text}: not of the form section.key=value")
    return tuple(name.split(".")), parse_value(value)


def overlay(params: Any, settings: list[Leaf], origin: str) -> list[tuple[str, Any, Any]]:
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
        if section.get(path[-1]) != value:
            changed.append((name, section.get(path[-1]), value))
            section[path[-1]] = value
    return changed


def flag(name: str, value: Any) -> str:
    """`-S name=value` as the shell and Hydra's grammar read it."""
    plus = "+" if is_open(tuple(name.split("."))) else ""
    return "-S " + shlex.quote(f"{plus}{name}={_hydra(value)}")


def _hydra(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_hydra(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_hydra, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, str) and not re.fullmatch(r"[\w./*@:-]+", value):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)


def main() -> None:
    """The command line: list, print or apply presets."""
    parser = argparse.ArgumentParser(prog="python -m rlhf_lib.preset", description=__doc__.split("\n", 1)[0])
    parser.add_argument("preset", nargs="?", help="the name of a file in presets/, without .yaml; none: list them")
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help="more params to set with it")
    parser.add_argument("--flags", action="store_true", help="print -S flags for dvc exp run; change nothing")
    arguments = parser.parse_args()
    names = sorted(path.stem for path in PRESETS.glob("*.yaml"))
    if arguments.preset is None:
        for name in names:
            first_line = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8").split("\n", 1)[0]
            print(f"{name:18} {first_line.lstrip('# ')}")
        return
    if arguments.preset not in names:
        raise ParamsError(f"no preset {arguments.preset!r}; there are: {', '.join(names)}")
    file = PRESETS / f"{arguments.preset}.yaml"
    yaml = YAML()
    yaml.Representer = Representer
    yaml.preserve_quotes = True
    yaml.width = 4096
    params = yaml.load(PARAMS_FILE.read_text(encoding="utf-8"))
    changed = overlay(params, list(leaves(load_yaml(file))), str(file))
    changed += overlay(params, [parse_setting(text) for text in arguments.settings], "command line")
    rewritten = StringIO()
    yaml.dump(params, rewritten)
    check_all(parse_yaml(rewritten.getvalue(), PARAMS_FILE), PARAMS_FILE)
    if arguments.flags:
        print(" ".join(flag(name, after) for name, _, after in changed))
        return
    PARAMS_FILE.write_text(rewritten.getvalue(), encoding="utf-8")
    for name, before, after in changed:
        print(f"{name}: {before} -> {after}")


if __name__ == "__main__":
    main()
