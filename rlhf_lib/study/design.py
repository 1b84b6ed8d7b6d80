"""What a study compares, as study.yaml declares it: settings of methods, each of them with every seed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from rlhf_lib.check.sections import check_all
from rlhf_lib.common.policies import LABELS, METHODS, section
from rlhf_lib.common.schema import PARAMS_FILE, NotEmpty, Seed, check, shown
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.experiments.sweep import needed, with_setting
from rlhf_lib.preset.overlay import hydra

FILE = Path("study.yaml")
SPLITS = {"validation": "prompts_validation", "test": "test"}  # as names of experiments have it, and evaluate.split
LONGEST = 150  # characters of a setting in a name, which git keeps as a file's
_PLAIN = re.compile(r"(?:[\w+, \[\]-]|\.(?!\.))*", re.ASCII)  # what still tells values apart once `_OTHER` is gone
_OTHER = re.compile(r"[^\w.+-]+|\.\.+", re.ASCII)  # what git allows in no name, or a shell would take for its own


@dataclass(frozen=True)
class Header:
    """What study.yaml holds beside the methods."""

    criterion: Literal["judge", "reward", "gold"]
    seeds: Annotated[list[Seed], NotEmpty()]


@dataclass(frozen=True)
class Setting:
    """Params of a method's section."""

    method: str
    params: tuple[tuple[str, str], ...]  # each value as Hydra's grammar has it

    @property
    def told(self) -> str:
        """As people read it."""
        return f"{LABELS[self.method]} {', '.join(f'{key} {value}' for key, value in self.params)}"

    @property
    def name(self) -> str:
        """As a part of names of experiments, by which a study knows its results again: of no two settings the same. A
        hash stands for what is no number, word or list of them, and for what is too long."""
        parts = [f"{key}{value}" for key, value in self.params]
        name = "-".join([self.method, *(_OTHER.sub("_", part).strip("_") for part in parts)])
        if len(name) <= LONGEST and all(map(_PLAIN.fullmatch, parts)):
            return name
        return f"{name[:LONGEST]}-{hashlib.sha256(repr(self.params).encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Run:
    """One experiment: a setting trained with a seed, and its answers to one split's prompts."""

    setting: Setting
    seed: int
    split: str  # a key of `SPLITS`

    @property
    def name(self) -> str:
        return f"study-{self.setting.name}-seed{self.seed}-{self.split}"

    @property
    def told(self) -> str:
        return f"{self.setting.told}, seed {self.seed}, {self.split}"

    def overrides(self, temperature: float) -> list[str]:
        """What the experiment sets in params.yaml, as `dvc exp run -S` takes it; it samples at one temperature."""
        method = self.setting.method
        of_method = [f"{section(method)}.{key}={value}" for key, value in self.setting.params]
        return [
            f"policy={method}",
            *(f"methods.{name}=true" for name in needed(method)),
            *of_method,
            f"{section(method)}.seed={self.seed}",
            f"evaluate.split={SPLITS[self.split]}",
            f"evaluate.temperatures=[{temperature:g}]",
        ]


@dataclass(frozen=True)
class Study:
    """criterion: the score of samples by which settings are chosen."""

    criterion: str
    seeds: Sequence[int]
    settings: Mapping[str, Sequence[Setting]]  # by method

    def runs(self, split: str) -> Iterator[Run]:
        """Every setting of every method with every seed; the methods take turns, so that a part of them compares."""
        for seed in self.seeds:
            for of_methods in zip(*self.settings.values(), strict=True):
                yield from (Run(setting, seed, split) for setting in of_methods)


def read(path: Path = FILE, params_path: Path = PARAMS_FILE) -> Study:
    """The study in a file; a `ParamsError` for what cannot be compared, or what params.yaml must not hold."""
    declared = load_yaml(path)
    methods = declared.pop("methods", None)
    header = check(Header, declared, "study", path)
    if len(set(header.seeds)) < max(2, len(header.seeds)):
        raise ParamsError(
            f"{path}: seeds: at least two different ones tell how much training varies; got {header.seeds}"
        )
    if not isinstance(methods, Mapping) or not methods:
        raise ParamsError(f"{path}: methods: must be a mapping of methods to lists of settings, got {shown(methods)}")
    params = load_yaml(params_path)
    settings = {str(method): list(_settings(str(method), of, params, path)) for method, of in methods.items()}
    if len({len(of) for of in settings.values()}) > 1:
        counts = ", ".join(f"{method} {len(of)}" for method, of in settings.items())
        raise ParamsError(
            f"{path}: methods: each must have as many settings as the others, to be tuned alike; got {counts}"
        )
    return Study(header.criterion, header.seeds, settings)


def _settings(method: str, of: Any, params: Mapping[str, Any], path: Path) -> Iterator[Setting]:
    where = f"{path}: methods.{method}"
    if method not in METHODS:
        raise ParamsError(f"{where}: no such method; there are: {', '.join(METHODS)}")
    if not isinstance(of, list) or not of:
        raise ParamsError(f"{where}: must be a list of settings, such as [{{learning_rate: 1.0e-4}}], got {shown(of)}")
    seen = list[Mapping[str, Any]]()
    for i, values in enumerate(of):
        if not isinstance(values, Mapping) or not values:
            raise ParamsError(f"{where}[{i}]: must be a mapping of params to values, got {shown(values)}")
        if "seed" in values:
            raise ParamsError(f"{where}[{i}].seed: the study sets it; see seeds")
        check_all(with_setting(params, method, values), path)
        setting = Setting(method, tuple((str(key), hydra(value)) for key, value in values.items()))
        if values in seen:  # 1 and 1.0 are one
            raise ParamsError(f"{where}[{i}]: the same setting twice: {setting.told}")
        seen.append(values)
        yield setting
