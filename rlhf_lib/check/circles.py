"""Inputs that stages make: a param may name an out of dvc.yaml only where the stage that reads it has it as a dep.

Any other would be a circle, or an input that DVC does not see change.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_lib.common import environment
from rlhf_lib.inputs.files import files
from rlhf_lib.inputs.graph import Graph, lies_in, overlap
from rlhf_lib.inputs.named import LAUNCHED, MODELS, REWARDED, Named, launch_files
from rlhf_lib.scoring.source import parse

COPY = "copy it to another place, and name that"


class Made(NamedTuple):
    """What an input has to do with an out. how: it "is" the out, "lies in" it, "holds" it, "matches" it (a glob), or
    "lies beside" it, in a folder of outs such as data/splits."""

    out: str
    maker: str
    how: str


def faults(sections: Mapping[str, Any], params: Mapping[str, Any], graph: Graph) -> dict[str, str]:
    """Every input that is an out and must not be one: by its param's name, what to say of it.

    sections: those that hold, of `params`, which are the whole of params.yaml.
    """
    launch = params.get("launch")
    found: dict[str, str] = {}
    for stage, named in _inputs(sections, launch if isinstance(launch, str) else ""):
        if stage in graph.stages and named.param not in found and (told := _fault(stage, named, graph)):
            found[named.param] = told
    return found


def _inputs(sections: Mapping[str, Any], launch: str) -> Iterator[tuple[str, Named]]:
    """What the params name by path, whether it is there or not, and the stage that reads it."""
    if "load" in sections:
        for number, source in enumerate(sections["load"].sources):
            yield from [("load", Named(f"load.sources[{number}].path", source.path, "files"))] if source.path else []
    for stage, key in MODELS.items():
        if stage in sections and (name := getattr(sections[stage], key)):
            yield stage, Named(f"{stage}.{key}", name, "folder")
    if "ppo" in sections:
        for number, entry in enumerate(sections["ppo"].reward_funcs):
            source = parse(entry)
            param = f"ppo.reward_funcs[{number}]"
            is_module = source.kind == "function"
            named = Named(param, source.location, "module") if is_module else Named(param, entry, "folder")
            yield from ((stage, named) for stage in REWARDED)
    if "llm_judge" in sections:
        yield "llm_judge", Named("llm_judge.rubric", sections["llm_judge"].rubric, "files")
    for file in launch_files(launch, Path()):
        yield from ((stage, Named("launch", file, "files")) for stage in LAUNCHED)


def _fault(stage: str, named: Named, graph: Graph) -> str | None:
    made = _made(named, graph)
    for one in made:
        if (way := graph.way(stage, one.maker)) is not None:
            return f"{_told(named, one)}; {stage} reads it: a cycle ({' -> '.join([*way, stage])}); {COPY}"
    if not made:
        return None
    told, out, how = _told(named, made[0]), made[0].out, made[0].how
    if out not in graph.stages[stage].deps or named.kind != "folder":
        add = f"add {out} to its deps there, or " if named.kind == "folder" and how == "is" else ""
        return f"{told}, and is no dep of stage {stage} in dvc.yaml, so that a change would go unseen; {add}{COPY}"
    if how != "is":
        return f"{told} anew; name {out}, or {COPY}"
    return None if os.path.normpath(named.name) == out else f"{told}; name it so: {out}"


def _told(named: Named, made: Made) -> str:
    if os.path.normpath(named.name) == made.out:
        return f"{named.name} is made by stage {made.maker}"
    return f"{named.name} {made.how} {made.out}, which stage {made.maker} makes"


def _made(named: Named, graph: Graph) -> list[Made]:
    """What an input is, or has, of outs: the name itself, or the files that it stands for, links followed and not."""
    outs = [(out, maker, place) for out, maker in graph.makers() for place in _places(out)]
    folders = [
        (out, maker, place)
        for out, maker in graph.makers()
        if os.sep in (parent := os.path.dirname(out)) and not os.path.isabs(parent)
        for place in _places(parent)
    ]

    def of(paths: Collection[str]) -> list[Made]:
        found = [Made(out, maker, how) for out, maker, place in outs for path in paths if (how := _how(path, place))]
        beside = ((out, maker) for out, maker, place in folders if any(lies_in(path, place) for path in paths))
        return found or [Made(out, maker, "lies beside") for out, maker in beside]

    if named.kind != "module" and (found := of(_places(named.name))):
        return found
    if named.kind == "files" and (found := [Made(out, maker, "matches") for out, maker in _matched(named.name, graph)]):
        return found
    near = cache(lambda folder: any(overlap(folder, place) for _, _, place in outs))
    followed = cache(os.path.realpath)
    for file in _files(named):
        folder, name = os.path.split(os.path.abspath(file))
        paths = [os.path.join(place, name) for place in {folder, followed(folder)} if near(place)]
        if found := of([*paths, *([os.path.realpath(file)] if os.path.islink(file) else [])]):
            return found
    return []


def _how(path: str, out: str) -> str | None:
    if path == out:
        return "is"
    return "lies in" if lies_in(path, out) else "holds" if lies_in(out, path) else None


def _matched(pattern: str, graph: Graph) -> Iterator[tuple[str, str]]:
    """The outs, files by their names, that a glob matches once they are there."""
    if glob.has_magic(pattern) and not os.path.lexists(pattern):
        parts = tuple(os.path.abspath(os.path.expanduser(pattern)).split(os.sep))
        for out, maker in graph.makers():
            if os.path.splitext(out)[1] and _fits(tuple(os.path.abspath(out).split(os.sep)), parts):
                yield out, maker


@cache  # or many ** would take for ever
def _fits(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Whether a path, part by part, is one that a glob matches."""
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fits(names[start:], parts[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatch(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _files(named: Named) -> list[str]:
    if named.kind == "folder" and not os.path.isfile(os.path.join(named.name, "config.json")):
        return []  # it is no model, and may hold anything
    try:
        return files(named, Path())
    except (OSError, ValueError):  # a NUL in it
        return []


def _places(path: str) -> set[str]:
    """A path as a whole one, and as what it is once links are followed; of the project, in the workspace."""
    try:
        whole = os.path.abspath(os.path.expanduser(path))
        found = {whole, os.path.realpath(whole)}
    except (OSError, ValueError):  # a NUL in it
        return set()
    root, here = str(environment.project()), os.getcwd()
    if root != os.path.realpath(here):
        found |= {os.path.join(here, os.path.relpath(place, root)) for place in found if lies_in(place, root)}
    return found
