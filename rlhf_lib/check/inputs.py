"""Whether what params name by path is there: data files, directories of models, reward functions, the rubric."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlhf_lib.check import functions
from rlhf_lib.data.load import files
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.inputs.files import BRING, nothing
from rlhf_lib.inputs.named import OUTS
from rlhf_lib.ppo.arguments import HEAD
from rlhf_lib.scoring.source import LOOKS_LOCAL, parse


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
        columns = columns_of(sections["load"].sources) if "load" in sections else None
        for number, entry in enumerate(sections["ppo"].reward_funcs):
            yield from _reward(f"ppo.reward_funcs[{number}]", entry, columns)
    if "llm_judge" in sections and not os.path.isfile(rubric := sections["llm_judge"].rubric):
        yield f"llm_judge.rubric: {rubric}: no such file; rubrics/ has those that come with the project"


def columns_of(sources: Iterable[SourceParams]) -> list[str]:
    """The columns that the prompts of these sources have for reward functions."""
    return list(dict.fromkeys((*HEAD, *(name for source in sources for name in source.columns_of_reward))))


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


def _reward(name: str, entry: str, columns: Sequence[str] | None = None) -> Iterator[str]:
    source = parse(entry)
    if source.kind == "directory" and not os.path.isdir(source.location):
        if os.path.normpath(source.location) not in OUTS:
            yield f"{name}: {entry}: no such directory; correct it, {BRING}"
    elif source.kind == "function":
        yield from functions.faults(name, source.location, str(source.attribute), columns)
