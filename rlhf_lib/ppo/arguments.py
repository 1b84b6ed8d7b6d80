"""Which arguments a reward function asks for, and whether it gets them: told before anything trains."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

HEAD = ("id", "source")  # of every prompt, beside what load.sources[...].reward_columns name
PASSED = ("prompts", "completions", "completion_ids", "trainer_state")
ELSEWHERE = ("log_extra", "log_metric", "environments")  # what TRL's GRPOTrainer passes too


class Arguments(NamedTuple):
    """Of a function: those without a default, all that it names, and whether it takes others (**columns)."""

    needed: list[str]
    named: list[str]
    others: bool


def of_function(function: Callable[..., Any]) -> Arguments | None:
    """The arguments of a function; None where Python cannot tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return Arguments(
        [p.name for p in named if p.default is p.empty],
        [p.name for p in named],
        any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def of_definition(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Arguments | None:
    """The same of its source, which is not run; None where a decorator may change them."""
    if node.decorator_list:
        return None
    given = node.args
    names = [arg.arg for arg in given.args]
    needed = names[: max(0, len(names) - len(given.defaults))]
    needed += [arg.arg for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True) if default is None]
    return Arguments(needed, names + [arg.arg for arg in given.kwonlyargs], given.kwarg is not None)


def fault(arguments: Arguments, columns: Collection[str]) -> str | None:
    """What a function that is called with the rows' `columns` (all but the prompt) lacks or refuses; None: nothing."""
    given = [*PASSED, *columns]
    for name in arguments.needed:
        if name in ELSEWHERE:
            return f"asks for {name}, which only TRL's GRPOTrainer gives; give it the default None"
        if name not in given:
            return (
                f"asks for {name}, but gets {', '.join(given)}; name the column that has it in load.sources: "
                f"reward_columns: {{{name}: <column>}}"
            )
    if not arguments.others and (refused := [name for name in given if name not in arguments.named]):
        return f"takes no {refused[0]}, with which it is called; add **columns to its arguments"
    return None
