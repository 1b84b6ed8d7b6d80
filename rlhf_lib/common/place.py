"""Where the project lies in its git repository, of which experiments are commits: at its root, or in a folder of it."""

from __future__ import annotations

from pathlib import Path


def repository(project: Path = Path()) -> Path:
    """The root of the git repository that holds a project; the project itself where none does."""
    here = project.resolve()
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), here)


def inside(project: Path = Path()) -> Path:
    """The project's folder as seen from there: what a clone of the repository is to be entered by."""
    return project.resolve().relative_to(repository(project))
