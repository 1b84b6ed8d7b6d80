"""Read and check params.yaml: one frozen dataclass a section, one line an error.

A section's class says what its fields may hold with plain annotations:

    learning_rate: Annotated[float, Above(0)]
    kl_estimator: Literal["k1", "k2", "k3"]
    max_steps: int | None
    sources: list[SourceParams]  # a dataclass again; of one, only the fields without a default must be given

A class may have a mapping `unserved`: keys that users of the library look for, and what to do in place of each.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import reprlib
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from rlhf_lib.common.policies import POLICIES
from rlhf_lib.common.yaml import ParamsError, load_yaml

PARAMS_FILE = Path("params.yaml")
# No whole number may be larger, no other number larger or, unless it is 0, smaller: what follows would overflow, or not
# fit into memory. No text may be longer: none is the name of a file.
LARGEST_INT, LARGEST, SMALLEST, LONGEST = 2**32 - 1, 1e30, 1e-30, 4095

Section = TypeVar("Section")


@dataclasses.dataclass(frozen=True)
class AtLeast:
    """A bound: the value is `low` or more."""

    low: float

    def fault(self, value: Any) -> str | None:
        return None if value >= self.low else f"must be at least {self.low:g}"


@dataclasses.dataclass(frozen=True)
class Above:
    """A bound: the value is more than `low`."""

    low: float

    def fault(self, value: Any) -> str | None:
        return None if value > self.low else f"must be above {self.low:g}"


@dataclasses.dataclass(frozen=True)
class Below:
    """A bound: the value is less than `high`."""

    high: float

    def fault(self, value: Any) -> str | None:
        return None if value < self.high else f"must be below {self.high:g}"


@dataclasses.dataclass(frozen=True)
class AtMost:
    """A bound: the value is `high` or less."""

    high: float

    def fault(self, value: Any) -> str | None:
        return None if value <= self.high else f"must be at most {self.high:.10g}"


@dataclasses.dataclass(frozen=True)
class NotEmpty:
    """A bound: the list has an item."""

    def fault(self, value: Any) -> str | None:
        return None if len(value) else "must not be empty"


class SomeText:
    """A bound: the text has a character."""

    def fault(self, value: Any) -> str | None:
        return None if value else "must not be an empty text"


Positive = Annotated[float, Above(0)]
NotNegative = Annotated[float, AtLeast(0)]
Fraction = Annotated[float, AtLeast(0), AtMost(1)]
Share = Annotated[float, Above(0), AtMost(1)]
Whole = Annotated[int, AtLeast(0)]
Count = Annotated[int, AtLeast(1)]
Copies = Annotated[int, AtLeast(1), AtMost(10_000)]  # of what is made or sampled for each prompt
Several = Annotated[int, AtLeast(2), AtMost(10_000)]  # of what one is chosen
BatchSize = Annotated[int, AtLeast(1), AtMost(1_000_000)]
NewTokens = Annotated[int, AtLeast(1), AtMost(1_000_000)]  # of an answer
MaxLength = Annotated[int, AtLeast(8), AtMost(1_000_000)]  # of a row, in tokens
StopStrings = list[Annotated[str, SomeText()]]  # an empty text would end every answer at its first token
Seed = Annotated[int, AtLeast(0), AtMost(LARGEST_INT)]  # what NumPy takes
Processes = Annotated[int, AtLeast(1), AtMost(1024)]


class _Shown(reprlib.Repr):
    """A repr of bounded length, whatever the value holds."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict, self.maxstring, self.maxother = 4, 8, 8, 200, 200

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**40 else f"a number of {x.bit_length()} bits"


def shown(value: Any) -> str:
    """`value` as a message shows it: one line of at most 300 characters."""
    text = _Shown().repr(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


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
            raise ParamsError(f"{path}: {name}: the {what} is missing; rlhf_lib/preset/demo.yaml has it")
        found = found[key]
    return found


def check_policy(params: Mapping[str, Any], path: Path = PARAMS_FILE) -> str:
    """The top-level `policy`, which `select` reports; a `ParamsError` unless it is one of `POLICIES`."""
    policy = params.get("policy")
    if not isinstance(policy, str) or policy not in POLICIES:
        raise ParamsError(f"{path}: policy: no policy {shown(policy)}; set it to one of {', '.join(POLICIES)}")
    return policy


def check_launch(params: Mapping[str, Any], path: Path = PARAMS_FILE) -> str:
    """The top-level `launch`, which starts the stages' modules; a `ParamsError` unless it can."""
    launch = params.get("launch")
    launch = launch if isinstance(launch, str) else shown(launch)
    words = launch.split()
    if words[:1] not in (["python"], ["accelerate"], ["torchrun"], ["bash"]):
        raise ParamsError(
            f"{path}: launch: must be python, or accelerate launch --config_file launch/<name>.yaml, got {launch[:200]}"
        )
    if "--config_file" in words and not os.path.isfile(file := words[(words.index("--config_file") + 1) % len(words)]):
        raise ParamsError(f"{path}: launch: {file}: no such file; launch/ has those that come with the project")
    return launch


def argument(arguments: Sequence[str], names: Sequence[str]) -> str:
    """The one of `names` that a stage's command line gives: `python -m stages.measure ppo`."""
    if len(arguments) != 2 or arguments[1] not in names:
        stage = Path(arguments[0]).stem
        raise ParamsError(f"usage: python -m stages.{stage} <one of {', '.join(names)}>; got {arguments[1:]}")
    return arguments[1]


def policy_argument(arguments: Sequence[str]) -> str:
    """The policy that a stage's command line names: `python -m stages.evaluate ppo`."""
    return argument(arguments, tuple(POLICIES))


def check(section: type[Section], values: Any, name: str, path: Path = PARAMS_FILE) -> Section:
    """An instance of the dataclass `section` from a plain mapping; a `ParamsError` names the first fault."""
    checked = examine(section, values, name, path)
    if isinstance(checked, list):
        raise ParamsError(checked[0])
    return checked


def examine(section: type[Section], values: Any, name: str, path: Path = PARAMS_FILE) -> Section | list[str]:
    """What `check` gives or, of a mapping that does not hold, every fault that can be told, a line each."""
    if not isinstance(values, Mapping):
        return [f"{path}: {name}: must be a mapping of params, got {shown(values)}"]
    hints = get_type_hints(section, include_extras=True)
    faults, checked = [], {}
    for key, value in values.items():
        if key not in hints:
            near = difflib.get_close_matches(str(key)[:100], hints, n=1, cutoff=0.5)
            way_out = f"did you mean {name}.{near[0]}?" if near else f"known keys: {', '.join(hints)}"
            way_out = getattr(section, "unserved", {}).get(key, way_out)
            faults.append(f"{path}: {name}.{str(key)[:100]}: unknown key; {way_out}")
            continue
        try:
            checked[key] = _value(hints[key], value, f"{name}.{key}", path)
        except ParamsError as error:
            faults.append(str(error))
    for key in _required(section):
        if key not in values:
            faults.append(f"{path}: {name}.{key}: missing; rlhf_lib/preset/demo.yaml has it")
    if faults:
        return faults
    try:
        return section(**checked)
    except ValueError as error:  # raised by a section's __post_init__ for faults between fields
        return [f"{path}: {name}.{error}"]


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
                raise ParamsError(f"{where}: {fault}, got {shown(value)}")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        options = [option for option in arguments if option is not type(None)]
        fitting = [option for option in options if (get_origin(option) or option) is type(value)]
        return _value((fitting or options)[0], value, name, path)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            raise ParamsError(f"{where}: must be one of {', '.join(map(str, arguments))}, got {shown(value)}")
        return value
    if origin is list:
        if not isinstance(value, list):
            raise ParamsError(f"{where}: must be a list, got {shown(value)}")
        return [_value(arguments[0], item, f"{name}[{i}]", path) for i, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ParamsError(f"{where}: must be a mapping of names, got {shown(value)}")
        return {key: _value(arguments[1], item, f"{name}.{key[:100]}", path) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return check(cast(type, hint), value, name, path)
    if type(value) is not hint and not (hint is float and type(value) is int):
        raise ParamsError(f"{where}: must be {_TYPE_NAMES[hint]}, got {shown(value)}")
    if hint in (int, float, str) and (fault := _size_fault(value, hint)):
        raise ParamsError(f"{where}: {fault}, got {shown(value)}")
    return float(value) if hint is float else value


def _size_fault(value: Any, hint: type) -> str | None:
    if hint is str:
        return None if len(value) <= LONGEST else f"must have at most {LONGEST} characters"
    if not isinstance(value, int) and not math.isfinite(value):
        return "must be finite"
    largest = LARGEST_INT if hint is int else LARGEST
    if abs(value) > largest:
        return f"must be at most {largest:.10g} in size"
    if 0 < abs(value) < SMALLEST:
        return f"must be 0 or at least {SMALLEST:g} in size"
    return None


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
