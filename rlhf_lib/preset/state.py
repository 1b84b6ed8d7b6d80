"""What params.yaml is: presets and settings over the demo's values, as its header says, and what was edited since.

The demo's params.yaml is kept in demo.yaml beside this file: git may hold anything. params.yaml is written as DVC would
write it, so that `dvc exp run -S` changes the lines of the values that it sets and no others.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.preset.overlay import Leaf, difference, overlay, parse_setting, read_preset

DEMO_FILE = Path(__file__).with_name("demo.yaml")
DEMO = "demo"  # the name of what the presets lie over
HEADER = re.compile(r"^# preset: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Origin:
    """The presets and the settings, in their order, that give a params.yaml."""

    presets: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)  # section.key=value

    def __str__(self) -> str:
        return shlex.join([*(self.presets or [DEMO]), *self.settings])

    @classmethod
    def of_words(cls, words: list[str]) -> Origin:
        """From the words of a command line or a header; `demo` adds nothing and comes first."""
        first_setting = next((i for i, word in enumerate(words) if "=" in word), len(words))
        presets = words[:first_setting]
        if presets[:1] == [DEMO]:
            presets = presets[1:]
        elif DEMO in presets:
            raise ParamsError(f"{DEMO}: is what the other presets lie over; name it alone or first")
        return cls(presets, words[first_setting:])

    def with_settings(self, settings: list[str]) -> Origin:
        """The same with more settings, in the place of those of the same names."""
        names = {setting.partition("=")[0] for setting in settings}
        return Origin(self.presets, [old for old in self.settings if old.partition("=")[0] not in names] + settings)

    def text(self) -> str:
        """params.yaml as they give it; a `ParamsError` for a preset or a key that is not there."""
        yaml = YAML()  # as DVC writes it
        yaml.default_flow_style = False
        written = StringIO()
        yaml.dump(self._over(yaml.load(DEMO_FILE.read_text(encoding="utf-8"))), written)
        return HEADER.sub(lambda _: f"# preset: {self}", written.getvalue(), count=1)

    def params(self) -> dict[str, Any]:
        """The values of `text`."""
        return self._over(deepcopy(_demo()))

    def _over(self, params: dict[str, Any]) -> dict[str, Any]:
        for name in self.presets:
            own = read_preset(name)
            overlay(params, [*_emptied(own), *own], name)
        overlay(params, map(parse_setting, self.settings), "command line")
        return params


@dataclass(frozen=True)
class Current:
    """params.yaml as it is.

    origin: what its header names; None where it has no header, or one that names what is not there.
    params: its values; empty where the file is missing or broken.
    edits: the values that differ from those of its origin, by name, as (before, after).
    comments: its comments that the demo's file does not have.
    fault: why it cannot be read; None if it can.
    """

    origin: Origin | None
    params: dict[str, Any]
    edits: dict[str, tuple[Any, Any]]
    comments: list[str]
    fault: str | None = None


def current(path: Path = PARAMS_FILE) -> Current:
    """What params.yaml is."""
    if not path.exists():
        return Current(Origin(), {}, {}, [])
    try:
        params = load_yaml(path)
        text = path.read_text(encoding="utf-8")
        header = HEADER.search(text)
        origin = Origin.of_words(_words(header[1])) if header else None
        expected = (origin or Origin()).params()
    except ParamsError as error:
        return Current(None, {}, {}, [], str(error))
    shipped = _comments(DEMO_FILE.read_text(encoding="utf-8"))
    own = [line for line in _comments(text) if line not in shipped and not HEADER.fullmatch(line)]
    return Current(origin, params, difference(expected, params), own)


def _emptied(own: list[Leaf]) -> Iterator[Leaf]:
    """What a preset takes back of those below it: a mixture of other sources, the options of another schedule."""
    for (section, key), _ in ((path[:2], value) for path, value in own if len(path) > 1):
        if (section, key) == ("load", "sources"):
            yield ("prepare", "mixture"), {}
            yield ("evaluate", "sources"), []
        elif key == "lr_scheduler_type":
            yield (section, "lr_scheduler_kwargs"), {}


@cache
def _demo() -> dict[str, Any]:
    return load_yaml(DEMO_FILE)


def _words(header: str) -> list[str]:
    try:
        return shlex.split(header)
    except ValueError as error:  # a quote that is not closed
        raise ParamsError(f"{PARAMS_FILE}: its line `# preset: {header}` cannot be read: {error}") from None


def _comments(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.lstrip().startswith("#")]
