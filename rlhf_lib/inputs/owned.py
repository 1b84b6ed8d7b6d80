"""Places that a command must not write to: what stages make, and what git tracks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.inputs.graph import Graph, lies_in


def owner(path: str) -> str | None:
    """Whose a file or folder is that a command of the user's is to write, as the end of a sentence on it, such as
    "is made by stage prepare"; None where it is nobody's.

    A stage's are the outs, metrics and plots that dvc.yaml declares, and the folders in which they lie, but for those
    at the top where the user's own may lie too, such as data. Links are followed.
    """
    graph = Graph.read(load_yaml(PARAMS_FILE) if PARAMS_FILE.exists() else {})
    places = {os.path.abspath(path), os.path.realpath(path)}
    for out, stage in graph.makers():
        if any(os.path.abspath(out) == place for place in places):
            return f"is made by stage {stage} (dvc.yaml)"
    for out, whose in _folders(graph):
        for folder in {os.path.abspath(out), os.path.realpath(out)}:
            if any(lies_in(place, folder) for place in places):
                return f"lies in {out}, {whose} (dvc.yaml)"
            if any(lies_in(folder, place) for place in places):
                return f"holds {out}, {whose} (dvc.yaml)"
    tracked = {file for place in places for file in _tracked(place)}
    if not tracked:
        return None
    return "holds files that git tracks" if any(map(os.path.isdir, places)) else "is tracked by git"


def _folders(graph: Graph) -> Iterator[tuple[str, str]]:
    """What stages write, and the folders that they write into; and whose each is."""
    for out, stage in graph.makers():
        yield out, f"which stage {stage} makes"
    for name, made in graph.stages.items():
        for out in made.outs:
            folder = os.path.dirname(out)
            if folder and not os.path.isabs(folder) and (os.sep in folder or out in made.shown):
                yield folder, f"where stage {name} writes"


def _tracked(path: str) -> list[str]:
    """The files of git that are `path`, or lie in it; none where no repository holds it, or git is not installed."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return []
    command = ["git", "-C", folder, "ls-files", "-z", "--", f":(literal){os.path.basename(path)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError:
        return []
    return [name for name in done.stdout.split("\0") if name] if done.returncode == 0 else []
