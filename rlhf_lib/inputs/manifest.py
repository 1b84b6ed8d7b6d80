"""data/inputs: one file of hashes for each stage that reads local files, which is a dep of that stage.

DVC's `deps` cannot hold what a param names. The stage that writes these files runs at every `dvc repro`; whatever
changes in a file, a folder or a glob changes the hashes of those that read it, and those alone.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from rlhf_lib.common import edited, environment, paths
from rlhf_lib.common.files import write_json
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.inputs.files import BRING, files, nothing
from rlhf_lib.inputs.named import Named, by_stage


def write(params: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Write the manifests, {file: its MD5 sum}, and give them by stage; a `ParamsError` where a file is missing.

    In a temporary workspace of `dvc exp run`, files that git does not track are missing; links to those of the project
    take their place.
    """
    root = environment.project()
    hashed = cache(_hasher(root))
    manifests: dict[str, dict[str, str]] = {}
    seen: dict[str, list[str | int]] = {}
    for stage, inputs in by_stage(params, root).items():
        found = [file for named in inputs for file in _present(named, root)]
        looks = {file: edited.look(file) for file in found}  # before it is read: an edit in between is one
        manifests[stage] = {file: hashed(os.path.realpath(file)) for file in found}
        seen |= {file: [md5, *looks[file]] for file, md5 in manifests[stage].items() if file not in seen}
        write_json(f"{paths.INPUTS}/{stage}.json", manifests[stage])
    write_json(edited.SEEN, seen)
    return manifests


def _present(named: Named, root: Path) -> list[str]:
    """The files of an input, all of them there."""
    here = Path.cwd()
    found = set(files(named, here))
    if root != here and not os.path.isabs(os.path.expanduser(named.name)):
        missing = set(files(named, root)) - found
        if outside := next((file for file in sorted(missing) if os.path.normpath(file).startswith(os.pardir)), None):
            raise ParamsError(
                f"params.yaml: {named.param}: {outside}: lies outside of the project, of which this is a copy; give "
                "its whole path, from /"
            )
        for file in missing - _tracked(missing, root):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(root / file, file)
            found.add(file)
    if not found and named.kind != "module":
        why = (named.kind == "files" and nothing(named.name)) or f"no files; correct the path, {BRING}"
        raise ParamsError(f"params.yaml: {named.param}: {named.name}: {why}")
    return sorted(found)


def _tracked(names: Iterable[str], root: Path) -> set[str]:
    """Those of the files that git tracks in the project: a workspace that lacks one is of another commit."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--", *sorted(names)], capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split("\0"))


def _hasher(root: Path) -> Any:
    """A function from a file to its MD5 sum, which DVC remembers for as long as the file stays as it is."""
    state = None

    def md5(file: str) -> str:
        nonlocal state
        from dvc.fs import localfs
        from dvc.repo import Repo
        from dvc_data.hashfile.hash import hash_file

        state = state or Repo(str(root)).state
        return str(hash_file(file, localfs, "md5", state=state)[1].value)

    return md5
