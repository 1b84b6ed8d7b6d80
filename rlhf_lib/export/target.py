"""Where an export may lie: in no other's place."""

from __future__ import annotations

import os
from pathlib import Path

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.export.directory import read_manifest
from rlhf_lib.inputs.owned import owner

ELSEWHERE = "give another folder, such as --out dist"


def check(source: Path, folder: Path) -> None:
    """A `ParamsError` of one line where the model in `source` cannot be exported into `folder`: it is an export itself,
    or `folder` cannot be made, or is in the place of the source, of an out that dvc.yaml declares, or of what git
    tracks."""
    if folder.resolve() == source.resolve():
        raise ParamsError(f"{folder}: is the model that was named, which its export would replace; {ELSEWHERE}")
    above = next(parent for parent in folder.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        why = "no right to write" if above.is_dir() else "a file, and no folder"
        raise ParamsError(f"{folder}: cannot be written: {above.name or above}: {why}; {ELSEWHERE}")
    if read_manifest(source) is not None:
        raise ParamsError(f"{source}: is an export itself; name the model that it was made from, such as models/dpo")
    if whose := owner(str(folder)):
        raise ParamsError(f"{folder}: {whose}; {ELSEWHERE}")
