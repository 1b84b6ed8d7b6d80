"""Whether what params name by path is there: data files, directories of models, reward functions, the rubric."""

from __future__ import annotations

import ast
import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf_lib.data.load import files
from rlhf_lib.inputs.files import BRING, nothing
from rlhf_lib.inputs.named import OUTS
from rlhf_lib.scoring.source import parse

LOOKS_LOCAL = ("models/", "rewards/", ".", "/", "~")  # what no model of the hub begins with


def faults(sections: Mapping[str, Any]) -> Iterator[str]:
    """Every path that is not there, `section.key: ...`; the outs of stages need not be."""
    if "load" in sections:
        for number, source in enumerate(sections["load"].sources):
            yield from _file(f"load.sources[{number}].path", source.path)
    for section, key in (("prepare", "tokenizer_name_or_path"), ("base", "model_name_or_path")):
        if section in sections:
            yield from _model(f"{section}.{key}", getattr(sections[section], key))
    for section in ("negatives", "reward", "judge"):
        if section in sections and (model := sections[section].model_name_or_path):
            yield from _reward(f"{section}.model_name_or_path", model)
    if "ppo" in sections:
        for number, entry in enumerate(sections["ppo"].reward_funcs):
            yield from _reward(f"ppo.reward_funcs[{number}]", entry)
    if "llm_judge" in sections and not os.path.isfile(rubric := sections["llm_judge"].rubric):
        yield f"llm_judge.rubric: {rubric}: no such file; rubrics/ has those that come with the project"


def _file(name: str, pattern: str | None) -> Iterator[str]:
    if pattern is None:
        return
    if why := nothing(pattern):
        yield f"{name}: {pattern}: {why}"
        return
    try:
        files.read(pattern)  # looks at names and kinds alone until the first record is asked for
    except SystemExit as fault:
        yield f"{name}: {fault}"


def _model(name: str, model: str | None) -> Iterator[str]:
    if model is None:
        return
    folder = os.path.expanduser(model)
    if model.startswith("~"):
        yield f"{name}: {model}: write it in full: {folder}"
    elif os.path.isfile(folder):
        yield f"{name}: {model}: is a file; name the directory of a model, or a model of the hub (owner/name)"
    elif (model.startswith(LOOKS_LOCAL) or model.count("/") > 1) and not os.path.isdir(folder):
        yield f"{name}: {model}: no such directory; correct it, name a model of the hub (owner/name), {BRING}"


def _reward(name: str, entry: str) -> Iterator[str]:
    source = parse(entry)
    if source.kind == "directory" and not os.path.isdir(source.location):
        if os.path.normpath(source.location) not in OUTS:
            yield f"{name}: {entry}: no such directory; correct it, {BRING}"
    elif source.kind == "function":
        yield from _function(name, source.location, str(source.attribute))


def _function(name: str, module: str, function: str) -> Iterator[str]:
    """What is wrong with module:function, whose module is not run: it may do anything."""
    file = Path(*module.split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    if not file.is_file():
        try:
            there = importlib.util.find_spec(module.partition(".")[0]) is not None
        except (ImportError, ValueError):
            there = False
        if not there or os.path.isdir(module.partition(".")[0]):
            yield f"{name}: {module}: no such module; {file} is looked for in the project's root"
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError) as error:
        yield f"{name}: {file} is not Python: {error}"
        return
    defined = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    others = any(not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Expr) for node in tree.body)
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in ast.walk(tree)):
        return  # it may come with what that brings
    if function not in defined and not (others and function in file.read_text(encoding="utf-8", errors="replace")):
        yield f"{name}: {file} has no {function}; it has {', '.join(sorted(defined)) or 'no function at all'}"
