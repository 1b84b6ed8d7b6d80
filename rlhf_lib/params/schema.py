"""Read and check params.yaml: one frozen dataclass a section, one line an error.

A section's class says what its fields may hold with plain annotations:

    learning_rate: Annotated[float, Above(0)]
    kl_estimator: Literal["k1", "k3"]
    max_steps: int | None
    sources: list[SourceParams]  # a dataclass again; of one, only the fields without a default must be given

PyYAML alone follows YAML 1.1 and reads `2e-05` (which is what `dvc exp run -S sft.learning_rate=2e-5`
writes) as a string and `no` as false; DVC follows YAML 1.2. `Loader` reads as DVC does.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

PARAMS_FILE = Path("params.yaml")
POLICIES = ("sft", "ppo", "dpo")

Section = TypeVar("Section")


class ParamsError(SystemExit):
    """A fault in the params, told in one line; ends the process with exit code 1."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.splitlines()))


@dataclasses.dataclass(frozen=True)
class AtLeast:
    low: float

    def fault(self, value: Any) -> str | None:
        return None if value >= self.low else f"must be at least {self.low:g}"


@dataclasses.dataclass(frozen=True)
class Above:
    low: float

    def fault(self, value: Any) -> str | None:
        return None if value > self.low else f"must be above {self.low:g}"


@dataclasses.dataclass(frozen=True)
class AtMost:
    high: float

    def fault(self, value: Any) -> str | None:
        return None if value <= self.high else f"must be at most {self.high:g}"


@dataclasses.dataclass(frozen=True)
class NotEmpty:
    def fault(self, value: Any) -> str | None:
        return None if len(value) else "must not be empty"


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the floats and booleans of YAML 1.2, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                line = node.start_mark.line + 1
                raise yaml.YAMLError(f"{key} stands twice in the block at line {line}; remove one")
        return super().construct_mapping(node, deep)


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
    """The value that a YAML text holds."""
    return yaml.load(text, Loader)  # noqa: S506 -- a SafeLoader


def parse_yaml(text: str, path: Path) -> dict[str, Any]:
    """The mapping that the text of the YAML file `path` holds; a broken one is a `ParamsError`."""
    try:
        parsed = parse_value(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(parsed, dict):
        raise ParamsError(f"{path}: must hold a mapping of sections")
    return parsed


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; a missing or broken file is a `ParamsError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run from the project's root") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: cannot be read: {error}") from None
    return parse_yaml(text, path)


def read(name: str, section: type[Section], path: Path = PARAMS_FILE) -> Section:
    """Section `name` of params.yaml as a checked instance of the dataclass `section`.

    A name as DVC writes it, `section.key`, gives that one value, checked against its type.
    """
    params = load_yaml(path)
    check_policy(params, path)
    return _value(section, setting(params, name, path), name, path)


def setting(params: Mapping[str, Any], name: str, path: Path = PARAMS_FILE) -> Any:
    """What `section` or `section.key` names in `params`; a `ParamsError` where it is missing."""
    found: Any = params
    for key in name.split("."):
        if not isinstance(found, Mapping) or key not in found:
            what = "key" if "." in name else "section"
            raise ParamsError(f"{path}: {name}: the {what} is missing; put it back (git checkout {path})")
        found = found[key]
    return found


def check_policy(params: Mapping[str, Any], path: Path = PARAMS_FILE) -> str:
    """The top-level `policy`, which `select` reports; a `ParamsError` unless it is one of `POLICIES`."""
    policy = params.get("policy")
    if policy not in POLICIES:
        raise ParamsError(f"{path}: policy: no policy {policy!r}; set it to one of {', '.join(POLICIES)}")
    return policy


def check_launch(params: Mapping[str, Any], path: Path = PARAMS_FILE) -> str:
    """The top-level `launch`, which starts the stages' modules; a `ParamsError` unless it can."""
    launch = params.get("launch")
    launch = launch if isinstance(launch, str) else repr(launch)
    words = launch.split()
    if words[:1] != ["python"] and words[:2] != ["accelerate", "launch"] and words[:1] != ["torchrun"]:
        raise ParamsError(
            f"{path}: launch: must be python, or accelerate launch --config_file launch/<name>.yaml, got {launch}"
        )
    if (
        "--config_file" in words
        and not (file := Path(words[(words.index("--config_file") + 1) % len(words)])).is_file()
    ):
        raise ParamsError(f"{path}: launch: {file}: no such file; launch/ has those that come with the project")
    return launch


def policy_argument(arguments: Sequence[str]) -> str:
    """The policy that a stage's command line names: `python -m stages.evaluate ppo`."""
    if len(arguments) != 2 or arguments[1] not in POLICIES:
        raise ParamsError(
            f"usage: python -m stages.<stage> <policy>, with a policy of {', '.join(POLICIES)}; got {arguments[1:]}"
        )
    return arguments[1]


def check(section: type[Section], values: Any, name: str, path: Path = PARAMS_FILE) -> Section:
    """An instance of the dataclass `section` from a plain mapping; a `ParamsError` names the first fault."""
    if not isinstance(values, Mapping):
        raise ParamsError(f"{path}: {name}: must be a mapping of params, got {values!r}")
    hints = get_type_hints(section, include_extras=True)
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(str(key), hints, n=1, cutoff=0.5)
            way_out = f"did you mean {name}.{near[0]}?" if near else f"known keys: {', '.join(hints)}"
            raise ParamsError(f"{path}: {name}.{key}: unknown key; {way_out}")
    for key in _required(section):
        if key not in values:
            raise ParamsError(f"{path}: {name}.{key}: missing; add it (git diff {path} shows what was removed)")
    checked = {key: _value(hints[key], value, f"{name}.{key}", path) for key, value in values.items()}
    try:
        return section(**checked)
    except ValueError as error:  # raised by a section's __post_init__ for faults between fields
        raise ParamsError(f"{path}: {name}.{error}") from None


def _required(section: type) -> list[str]:
    """The fields without a default; only the entries of a list or a mapping have fields with one."""
    return [
        field.name
        for field in dataclasses.fields(section)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]


def _value(hint: Any, value: Any, name: str, path: Path) -> Any:
    """`value` as `hint` wants it (an int may stand for a float), or a `ParamsError` that names the param."""
    origin, arguments = get_origin(hint), get_args(hint)
    where = f"{path}: {name}"
    if origin is Annotated:
        value = _value(arguments[0], value, name, path)
        for bound in arguments[1:] if value is not None else ():
            if fault := bound.fault(value):
                raise ParamsError(f"{where}: {fault}, got {value!r}")
        return value
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _value(next(a for a in arguments if a is not type(None)), value, name, path)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            raise ParamsError(f"{where}: must be one of {', '.join(map(str, arguments))}, got {value!r}")
        return value
    if origin is list:
        if not isinstance(value, list):
            raise ParamsError(f"{where}: must be a list, got {value!r}")
        return [_value(arguments[0], item, f"{name}[{i}]", path) for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ParamsError(f"{where}: must be a mapping of names, got {value!r}")
        return {key: _value(arguments[1], item, f"{name}.{key}", path) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return check(cast(type, hint), value, name, path)
    if hint is float and type(value) is int:
        value = float(value)
    if hint is float and type(value) is float and not math.isfinite(value):
        raise ParamsError(f"{where}: must be finite, got {value!r}")
    if type(value) is not hint:
        raise ParamsError(f"{where}: must be {_TYPE_NAMES[hint]}, got {value!r}")
    return value


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
