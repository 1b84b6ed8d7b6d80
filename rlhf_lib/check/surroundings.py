"""Whether DVC can work in the project's folder: what it says where it cannot names no way out."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from rlhf_lib.common.place import repository


def fault() -> str | None:
    """What keeps `dvc repro` from running in the working directory; None where nothing is seen to."""
    here = Path.cwd()
    if not Path("dvc.yaml").is_file():
        return None  # not the project's folder, of which params.yaml tells
    config = next((folder / ".dvc/config" for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), None)
    if config is None:
        return f"{here}: no folder .dvc in it; clone the project, or make one with `dvc init`"
    without_git = config.is_file() and "no_scm = true" in config.read_text(encoding="utf-8").lower()
    if not without_git and not (repository() / ".git").exists():
        return (
            f"{here}: no git repository, which DVC needs; clone the project, or make it one: git init && git add -A && "
            "git commit -m start"
        )
    if barred := next((path for path in (here, config.parent) if not os.access(path, os.W_OK)), None):
        return f"{barred}: may not be written; give this user the right to, or copy the project to where it may"
    if any(sign in str(here) for sign in "{}"):
        return f"{here}: DVC fails in a path with braces; move the project to one without"
    return nameless()


def nameless() -> str | None:
    """What to say to a user who has a number and no name, as in a container; None to others. DVC asks for the name."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # the latter from Python 3.13 on
        return f"user {os.getuid()} has no name here, for which DVC asks; export USER=somebody"
    return None
