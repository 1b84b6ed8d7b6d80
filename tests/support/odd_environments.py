"""Odd surroundings of a project's commands: how each comes about, and what must then be said."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from copied_project import commit
from copied_project import run as run_in

CHECK, INPUTS, PREPARE, SHOW = (
    f"python -m {module}" for module in ("rlhf_lib.check", "stages.inputs", "stages.prepare", "rlhf_lib.data.show")
)
REPRO = "dvc repro -q prepare"
ALL = (CHECK, REPRO)


class Odd(NamedTuple):
    """commands: what is run, one after the other, by a shell in the project's folder. told: a pattern of the line that
    the last ends with; None where all go well, and the data are as ever. env: variables; None takes one out. before:
    what is done to the project's folder, which may give another one. around: what the shell is started by."""

    commands: tuple[str, ...]
    told: str | None = None
    env: Mapping[str, str | None] = MappingProxyType({})
    before: Callable[[Path], Path | None] = lambda project: None
    around: tuple[str, ...] = ()


def moved(name: str) -> Callable[[Path], Path]:
    """The project in a folder of another name."""
    return lambda project: project.rename(project.parent / name)


def hiding(name: str) -> Callable[[Path], None]:
    """A file, or a package, of a name in the project's folder."""

    def before(project: Path) -> None:
        file = project / name / "__init__.py" if "." not in name else project / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("x = 1\n")

    return before


def git(*words: str) -> Callable[[Path], None]:
    """A git command in the project."""
    return lambda project: run_in(project, "git", *words) and None


def without(name: str) -> Callable[[Path], None]:
    """The project less one of its folders."""
    return lambda project: (project / name).rename(project.parent / f"{name}-away") and None


def worktree(project: Path) -> Path:
    run_in(project, "git", "worktree", "add", "-q", "../worktree")
    return project.parent / "worktree"


def shallow(project: Path) -> Path:
    run_in(project, "git", "clone", "-q", "--depth", "1", f"file://{project}", "../shallow")
    return project.parent / "shallow"


def submodule(project: Path) -> Path:
    above = project.parent / "above"
    above.mkdir()
    run_in(above, "git", "init", "-q")
    run_in(above, "git", "-c", "protocol.file.allow=always", "submodule", "add", "-q", f"file://{project}", "inner")
    return above / "inner"


def linked(project: Path) -> Path:
    (project.parent / "link").symlink_to(project)
    return project.parent / "link"


def of_another(project: Path) -> None:
    for path in (project, project / ".git"):
        os.chown(path, 12_345, 12_345)


def with_hooks(project: Path) -> None:
    hook = project / "hooks/pre-commit"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    run_in(project, "git", "config", "core.hooksPath", "hooks")


def dvc_config(*words: str) -> Callable[[Path], None]:
    """An option of DVC's, in .dvc/config."""

    def before(project: Path) -> None:
        run_in(project, "dvc", "config", *words)
        commit(project)

    return before


def read_only(project: Path) -> tuple[str, ...]:
    """What starts a shell to which the project is a read-only file system."""
    mount = f'mount --bind {project} {project} && mount -o remount,ro,bind {project} && cd {project} && exec "$@"'
    return ("unshare", "-m", "sh", "-c", mount, "sh")


def can_mount() -> bool:
    """Whether this user may make mounts of its own."""
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


HIDES = r"{}: in the project's folder, hides the library {} from Python; rename it"
ASCII = {"LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
JUNK = 'KEY="unclosed\n=x\n\x00\nPATH=/nowhere\n'
NO_READER = r"nobody reads the output any more"
PIPED = "set -o pipefail; {} | true"

ENVIRONMENTS: dict[str, Odd] = {
    # ---- where the project is
    "as ever": Odd((*ALL, SHOW)),
    "no git repository": Odd((CHECK,), r"no git repository, which DVC needs; clone", before=without(".git")),
    "no .dvc": Odd((CHECK,), r"no folder .dvc in it; clone", before=without(".dvc")),
    "a worktree": Odd(ALL, before=worktree),
    "a shallow clone": Odd(ALL, before=shallow),
    "a submodule": Odd(ALL, before=submodule),
    "a detached HEAD": Odd(ALL, before=git("checkout", "-q", "--detach")),
    "a folder of another user": Odd(ALL, before=of_another),
    "behind a link": Odd(ALL, before=linked),
    "hooks that refuse": Odd(ALL, before=with_hooks),
    "a path with a space": Odd(ALL, before=moved("a b")),
    "a path with letters of others": Odd(ALL, before=moved("ünï 中")),
    "a path with quotes": Odd(ALL, before=moved("a'b\"c")),
    "a path with a dash first": Odd(ALL, before=moved("-rf")),
    "a path with signs of the shell": Odd(ALL, before=moved("a%b$c#d;e&f")),
    "a path with signs of globs": Odd(ALL, before=moved("a[b]*?")),
    "a path with braces": Odd((CHECK,), r"DVC fails in a path with braces; move", before=moved("a{b}")),
    "a path with a newline": Odd(ALL, before=moved("a\nb")),
    "a long path": Odd(ALL, before=moved("x" * 200)),
    # ---- files in its folder
    **{
        f"{name} in it": Odd((command,), HIDES.format(name, name.partition(".")[0]), before=hiding(name))
        for name in ("datasets", "token.py", "yaml.py", "tokenize.py", "random.py", "logging.py", "torch", "numpy.py")
        for command in (CHECK if name != "token.py" else INPUTS,)
    },
    "test.py and data in it": Odd(ALL, before=hiding("test.py")),
    "a .env of junk": Odd(ALL, before=lambda project: (project / ".env").write_text(JUNK) and None),
    "DVC stages what it writes": Odd(ALL, before=dvc_config("core.autostage", "true")),
    "a shared cache": Odd(ALL, before=lambda project: dvc_config("cache.dir", str(project.parent / "shared"))(project)),
    "links into the cache": Odd(ALL, before=dvc_config("cache.type", "symlink")),
    # ---- variables
    "no HOME": Odd(ALL, env={"HOME": None}),
    "a HOME that is not there": Odd(ALL, env={"HOME": "/proc/none"}),
    "no folder for temporary files": Odd(ALL, env={"TMPDIR": "/nowhere"}),
    "ASCII": Odd((*ALL, SHOW, INPUTS), env=ASCII),
    "Latin 1": Odd((*ALL, SHOW), env={"PYTHONIOENCODING": "latin-1"}),
    "Python without assertions": Odd((*ALL, PREPARE, f"{CHECK} --help"), env={"PYTHONOPTIMIZE": "2"}),
    "warnings are errors": Odd((CHECK, INPUTS, PREPARE), env={"PYTHONWARNINGS": "error"}),
    "hashes of a seed": Odd(ALL, env={"PYTHONHASHSEED": "7"}),
    "OMP_NUM_THREADS a word": Odd(ALL, env={"OMP_NUM_THREADS": "many"}),
    "CUDA_VISIBLE_DEVICES a word": Odd(ALL, env={"CUDA_VISIBLE_DEVICES": "frob"}),
    "HF_HOME that is not there": Odd(ALL, env={"HF_HOME": "/proc/none", "TRANSFORMERS_OFFLINE": "1"}),
    "a proxy that is none": Odd(ALL, env={"http_proxy": "frob://:x", "https_proxy": "::", "ALL_PROXY": "socks9://a"}),
    "an odd time zone": Odd(ALL, env={"TZ": "Nowhere/None"}),
    "a narrow terminal": Odd((*ALL, SHOW), env={"COLUMNS": "1", "TERM": "dumb"}),
    "ranks of no launch": Odd(ALL, env={"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3", "MASTER_ADDR": "nowhere"}),
    # ---- limits and streams
    "umask 077": Odd(("umask 077; " + CHECK, "umask 077; " + REPRO)),
    "few open files": Odd(("ulimit -n 64; " + CHECK, "ulimit -n 64; " + REPRO)),
    "one core": Odd(ALL, around=("taskset", "-c", "0")),
    "no stdin": Odd((f"{CHECK} <&-", f"{REPRO} <&-")),
    "no stdout": Odd((f"{CHECK} >&-", f"{INPUTS} >&-", f"{PREPARE} >&-")),
    "no stream at all": Odd((f"{CHECK} <&- >&- 2>&-", f"{INPUTS} <&- >&- 2>&-")),
    "a check that nobody reads": Odd((PIPED.format(CHECK),), NO_READER),
    "a table that nobody reads": Odd((f"{SHOW} | true",)),
    "a check into a full disk": Odd((f"{CHECK} >/dev/full",), r"disk is full|cannot be written"),
    "a stage into a full disk": Odd((f"{PREPARE} >/dev/full",), r"disk is full|cannot be written"),
}
READ_ONLY: dict[str, Odd] = {
    "the check of a read-only project": Odd((CHECK,), r"may not be written; give this user the right to"),
    "a stage of a read-only project": Odd((INPUTS,), r"inputs: .*Read-only file system; give this user the right"),
    "a preset of a read-only project": Odd(("python -m rlhf_lib.preset demo",), r"Read-only file system; give this"),
}
