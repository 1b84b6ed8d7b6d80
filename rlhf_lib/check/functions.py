"""Whether reward functions are there, and get the arguments that they ask for. Modules of the project are not run."""

from __future__ import annotations

import ast
import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlhf_lib.common import environment
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.ppo import arguments
from rlhf_lib.ppo.arguments import Arguments


def faults(name: str, module: str, function: str, columns: Sequence[str] | None) -> Iterator[str]:
    """What is wrong with module:function, which the param `name` names.

    columns: those of the prompts, in which its arguments are looked for; None where they are not known.
    """
    file = Path(*module.split("."))
    file = file / "__init__.py" if os.path.isdir(file) else file.with_suffix(".py")
    found = _of_project(file, function) if os.path.isfile(file) else _installed(module, function, file)
    if isinstance(found, Arguments):
        fault = None if columns is None else arguments.fault(found, columns)
        found = f"{module}:{function} {fault}" if fault else None
    if found is not None:
        yield f"{name}: {found}"


def _of_project(file: Path, function: str) -> Arguments | str | None:
    """The arguments, or what is wrong, by the source, which is not run: it may do anything. None: it does not tell."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"{file} is not Python: {str(error) or 'nested too deeply'}"
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    if function in functions:
        return arguments.of_definition(functions[function])
    defined = {*functions, *(node.name for node in tree.body if isinstance(node, ast.ClassDef))}
    others = any(not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Expr) for node in tree.body)
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)):
        return None  # it may come with what that brings
    if function in defined or (others and function in file.read_text(encoding="utf-8", errors="replace")):
        return None
    return f"{file} has no {function}; it has {', '.join(sorted(defined)) or 'no function at all'}"


def _installed(module: str, function: str, file: Path) -> Arguments | str | None:
    """The same of an installed module, which is imported."""
    package = module.partition(".")[0]
    try:
        there = importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        there = False
    if not there or os.path.isdir(package):
        return f"{module}: no such module; {file} is looked for in the project's root"
    with environment.importing():
        from rlhf_lib.ppo.rewards import load_function
    try:
        return arguments.of_function(load_function(module, function))
    except ParamsError as error:
        return str(error).removeprefix(f"{PARAMS_FILE}: ppo.reward_funcs: ")
    except Exception:
        return None  # of its own import; ppo tells
