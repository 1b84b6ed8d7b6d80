"""The reward of PPO by decoded text: a weighted sum of reward functions, in the contract of TRL's GRPOTrainer."""

from __future__ import annotations

import asyncio
import copy
import difflib
import importlib
import inspect
import math
import numbers
import reprlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn, TypeAlias

from transformers import TrainerState

from rlhf_lib.common.rows import Message
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import hardware
from rlhf_lib.ppo import arguments
from rlhf_lib.ppo.users_code import users_code
from rlhf_lib.scoring.reward_model import RewardModel
from rlhf_lib.scoring.source import RewardSource, parse

# A function takes the keyword arguments `prompts` (each a list of messages), `completions` (each a list of one
# message) and every other column of the rows, and returns a list of a number or None for each row.
RewardFunction: TypeAlias = RewardModel | Callable[..., Any]


class Rewards(NamedTuple):
    """total: one weighted sum a row. by_name: each function's own rewards, unweighted; None where it gave none."""

    total: list[float]
    by_name: dict[str, list[float | None]]


@dataclass
class Seen:
    """What a function gave so far: to how many answers, to how many of them a number, and the first two that differ."""

    answers: int = 0
    scored: int = 0
    values: list[float] = field(default_factory=list)

    def add(self, rewards: Sequence[float | None]) -> None:
        """Count rewards."""
        known = [reward for reward in rewards if reward is not None]
        self.answers, self.scored = self.answers + len(rewards), self.scored + len(known)
        if len(self.values) < 2:
            self.values = list(dict.fromkeys([*self.values, *known]))[:2]

    def fault(self) -> str | None:
        """Why the function told no answer from another; None where it did, or was not asked often enough to know."""
        if self.answers > 1 and not self.scored:
            return f"gave no number to any of {self.answers:,} answers"
        if self.scored > 1 and len(self.values) == 1:
            return f"gave {self.values[0]:g} to all of the {self.scored:,} answers that it scored"
        return None


class RewardFunctions:
    """Reward functions and reward models as one reward: the sum of weight times reward.

    A row's total is over the functions that gave a number for it. A row that no function scored gets 0, which is
    the mean of a normalised reward.
    """

    def __init__(self, functions: Mapping[str, RewardFunction], weights: Sequence[float]) -> None:
        if len(weights) != len(functions):
            raise ParamsError(
                f"params.yaml: ppo.reward_weights: {len(weights)} weights for {len(functions)} reward_funcs; give one "
                "for each, or null for 1 each"
            )
        self.functions = dict(functions)
        self.weights = list(weights)
        self.seen = {name: Seen() for name in functions}

    @classmethod
    def load(
        cls,
        reward_funcs: Sequence[str],
        reward_weights: Sequence[float] | None,
        normalize_rewards: bool,
        batch_size: int = 64,
    ) -> RewardFunctions:
        """The functions that the entries name (see `reward_source.parse`); weights of None are all 1.

        `normalize_rewards`: whether models with reward statistics give normalised rewards. `batch_size`: rows to a
        forward pass of a model. A `ParamsError` for an entry that is malformed or cannot be had.
        """
        functions: dict[str, RewardFunction] = {}
        for entry in reward_funcs:
            try:
                source = parse(entry)
            except ValueError as error:
                raise ParamsError(f"params.yaml: ppo.{error}") from None
            functions[_unused_name(source.name, functions)] = _load(source, normalize_rewards, batch_size)
        return cls(functions, [1.0] * len(functions) if reward_weights is None else reward_weights)

    def check(self, columns: Collection[str]) -> None:
        """A `ParamsError` where a function asks for an argument that rows with these columns do not give."""
        for name, function in self.functions.items():
            asked = None if isinstance(function, RewardModel) else arguments.of_function(function)
            if asked and (fault := arguments.fault(asked, columns)):
                raise ParamsError(f"params.yaml: ppo.reward_funcs: {name} {fault}")

    def __call__(
        self,
        prompts: Sequence[list[Message]],
        completions: Sequence[str],
        columns: Mapping[str, Sequence[Any]],
        trainer_state: TrainerState | None = None,
    ) -> Rewards:
        """The rewards of rows, in the given order. `columns` are the rows' other columns, one value a row in each."""
        by_name = {
            name: _rewards(name, function, prompts, completions, columns, trainer_state)
            for name, function in self.functions.items()
        }
        for name, rewards in by_name.items():
            self.seen[name].add(rewards)
        total = [0.0] * len(prompts)
        for weight, rewards in zip(self.weights, by_name.values(), strict=True):
            for row, reward in enumerate(rewards):
                if reward is not None:
                    total[row] += weight * reward
        return Rewards(total, by_name)

    def idle(self) -> Iterator[str]:
        """A sentence on each function that told none of this process's answers from another so far."""
        for name, seen in self.seen.items():
            if fault := seen.fault():
                yield f"reward function {name} {fault}: nothing can be learnt from it (params.yaml: ppo.reward_funcs)"


def _unused_name(name: str, used: Mapping[str, Any]) -> str:
    """`name`, or the first of name_2, name_3, ... that is not in `used`."""
    numbered, count = name, 1
    while numbered in used:
        count += 1
        numbered = f"{name}_{count}"
    return numbered


def _load(source: RewardSource, normalize: bool, batch_size: int) -> RewardFunction:
    if source.attribute is not None:
        return load_function(source.location, source.attribute)
    return RewardModel.load(source.location, source.revision, normalize, batch_size, hardware.frozen_dtype())


def load_function(module_name: str, attribute: str) -> Callable[..., Any]:
    """The function of a module, looked up from the project's root; a `ParamsError` where there is none."""
    where = f"params.yaml: ppo.reward_funcs: {module_name}:{attribute}"
    with users_code(f"{module_name}:{attribute}: the import of {module_name}"):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and f"{module_name}.".startswith(f"{error.name}."):
                raise ParamsError(
                    f"{where}: no module {error.name}; modules are looked up from the project's root, where "
                    "rewards/mine.py is rewards.mine"
                ) from None
            raise ParamsError(f"{where}: it imports {error.name}, which is not installed; install it") from None
    function = getattr(module, attribute, None)
    if function is None:
        names = [name for name in dir(module) if not name.startswith("_") and callable(getattr(module, name, None))]
        near = difflib.get_close_matches(attribute, names, n=1)
        way_out = f"did you mean {near[0]}?" if near else f"it has {', '.join(names[:10]) or 'no function at all'}"
        raise ParamsError(f"{where}: no {attribute} in the module; {way_out}")
    if not callable(function):
        raise ParamsError(f"{where}: not a function but {reprlib.repr(function)}; name a function of the module")
    return function


def _rewards(
    name: str,
    function: RewardFunction,
    prompts: Sequence[list[Message]],
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
    trainer_state: TrainerState | None,
) -> list[float | None]:
    """One function's rewards, checked; a `ParamsError` for what it raises."""
    if not prompts:
        return []
    if isinstance(function, RewardModel):
        return _checked(name, function(prompts, completions), len(prompts))
    # prompt and completion would be the singular columns of the same; GRPOTrainer leaves them out too
    keywords: dict[str, Any] = {
        key: list(values) for key, values in columns.items() if key not in ("prompt", "completion")
    }
    keywords["prompts"] = list(prompts)
    keywords["completions"] = [[{"role": "assistant", "content": text}] for text in completions]
    keywords["trainer_state"] = trainer_state
    own = copy.deepcopy(keywords)  # what it edits, no other function and no trainer sees
    with users_code(f"the reward function {name}"):
        given = function(**own)
        if inspect.iscoroutine(given):
            given = asyncio.run(given)
    return _checked(name, given, len(prompts))


def _checked(name: str, given: Any, count: int) -> list[float | None]:
    """`given` as a list of `count` finite floats or None; else a `ParamsError` that names the function."""
    if not isinstance(given, list):
        _refuse(name, f"gave {reprlib.repr(given)} of type {type(given).__name__}, not a list")
    if len(given) != count:
        _refuse(name, f"gave {len(given)} rewards for {count} rows")
    return [None if value is None else _number(name, row, value) for row, value in enumerate(given)]


def _number(name: str, row: int, value: Any) -> float:
    number = math.nan
    if isinstance(value, numbers.Real):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    if not math.isfinite(number):
        _refuse(name, f"gave {_shown(value)} for row {row}")
    return number


def _shown(value: Any) -> str:
    """The beginning of what a value is, or its type where it has too many digits to be written."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return f"a number of type {type(value).__name__} that is too long to write"


def _refuse(name: str, fault: str) -> NoReturn:
    raise ParamsError(
        f"reward function {name}: {fault}; it must return a list of one finite number or None for each row"
    )
