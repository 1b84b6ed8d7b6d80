"""The -S overrides that README and docs name are such as params.yaml takes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from doc_pages import COMMAND_PAGES, prose
from hydra.core.override_parser.overrides_parser import OverridesParser
from shipped_params import PARAMS, shipped

from rlhf_lib.check.sections import check_all
from rlhf_lib.preset.overlay import is_open

# ---- -S


Override = tuple[bool, list[str], Any]  # whether it adds the key, the key's path, its value


def overrides() -> Iterator[tuple[str, tuple[str, ...]]]:
    """(page, texts) of every line with `-S key=value`, braces expanded as the shell does."""
    pattern = r"-S ?(?:(\"[^\"]+\"|'[^']+')|\{([\w,]+)\}(\.\S+=[^\s\"`]+)|(\w[^\s\"`]*=[^\s\"`,]\S*?))(?=[\s\"`]|, |$)"
    for page in COMMAND_PAGES:
        for line in prose(page).splitlines():
            texts: list[str] = []
            for quoted, braced, rest, plain in re.findall(pattern, line):
                texts += [name + rest for name in braced.split(",")] if braced else [quoted[1:-1] or plain.rstrip(",")]
            if texts:
                yield str(page), tuple(texts)


OVERRIDES = sorted(set(overrides()))


def read_override(text: str) -> list[Override]:
    """What DVC reads of `-S text`: one override for each of its values."""
    parser = OverridesParser.create()
    override = parser.parse_override(text.replace("<commit>", "0" * 40))
    path = override.key_or_group.split(".")
    if not override.is_sweep_override():
        return [(override.is_add(), path, override.value())]
    return [(False, path, parser.parse_override(f"x={value}").value()) for value in override.sweep_string_iterator()]


def apply(params: dict[str, Any], adds: bool, path: list[str], value: Any) -> None:
    section = params
    for name in path[:-1]:
        section = section.setdefault(name, {}) if adds else section[name]
    assert path[-1] in section or (adds and is_open(tuple(path))), f"no key {'.'.join(path)}"
    section[path[-1]] = value


def test_overrides_are_found():
    found = {text for _, texts in OVERRIDES for text in texts}
    assert {"policy=ppo", "ppo.kl_coef=0.8", "load.seed=1", "+prepare.mixture.demo.max_rows=2000"} <= found
    assert "launch='accelerate launch --config_file launch/cpu-2.yaml'" in found


@pytest.mark.parametrize(("page", "texts"), OVERRIDES)
def test_overrides_are_such_as_params_yaml_takes(page: str, texts: tuple[str, ...]):
    for together in itertools.product(*map(read_override, texts)):
        params = shipped()
        for override in together:
            apply(params, *override)
        check_all(params, PARAMS)
