"""Who names what in DVC's cache: the workspace, git's refs, and experiments.

What must stay is read as plainly as can be: every hash that stands in any dvc.lock or .dvc file which a branch, a tag,
a stash or the workspace has, whatever it is there for, and also where DVC could not read that commit any more. What may
go is read strictly: the outs of an experiment's dvc.lock.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlhf_lib.common.dvc_project import GRAPH

MODELS = "models/"
LOCK = "dvc.lock"
_EXPERIMENT = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/([^/]+)")
# What waits in DVC's queue, and what `dvc exp apply` has put aside; each with its log, as git's stash has one.
_STASHES = ("refs/stash", "refs/exps/stash", "refs/exps/celery/stash", "refs/exps/apply/stash")
_HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?:\.dir)?(?![0-9a-f])")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Out:
    """A file or folder that a stage has made; `hash` ends with .dir where it is a folder."""

    stage: str
    path: str
    hash: str

    @property
    def is_model(self) -> bool:
        return self.path.startswith(MODELS)


@dataclass(frozen=True)
class Experiment:
    """An experiment that has ended: its outs, and the hashes that it names besides."""

    name: str
    ended: float  # seconds since 1970
    outs: tuple[Out, ...]
    others: frozenset[str]


def git(*words: str, given: str = "") -> str:
    """What git prints; a `SystemExit` of one line where it fails."""
    try:
        done = subprocess.run(["git", *words], input=given, capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise SystemExit("git: not found; experiments are git's commits") from None
    if done.returncode:
        raise SystemExit(f"git {words[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout


def hashes(text: str) -> set[str]:
    """Every hash of DVC's cache that stands in a text."""
    return set(_HASH.findall(text))


def lock_outs(text: str) -> list[Out]:
    """The outs that a dvc.lock records; a `ValueError` where the text is none."""
    try:
        stages = yaml.load(text, _LOADER)["stages"]  # noqa: S506 -- a safe loader
        return [out for name, stage in stages.items() for out in stage_outs(name, stage)]
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"no {LOCK}: {error}") from None


def stage_outs(name: str, stage: Any) -> Iterator[Out]:
    """The outs of a stage's record in a dvc.lock or in the run cache that have one hash."""
    for out in stage.get("outs", []):
        if "md5" in out:
            yield Out(name, out["path"], out["md5"])


def experiments() -> list[Experiment]:
    """The experiments that have ended, of all commits, the oldest first."""
    listed = git("for-each-ref", "--format=%(refname) %(objectname) %(committerdate:unix)", "refs/exps")
    found = []
    for ref, commit, ended in (line.split() for line in listed.splitlines() if len(line.split()) == 3):
        if match := _EXPERIMENT.fullmatch(ref):
            found.append(_experiment(match[1], commit, float(ended)))
    return sorted(found, key=lambda experiment: (experiment.ended, experiment.name))


def _experiment(name: str, commit: str, ended: float) -> Experiment:
    files = git("ls-tree", "-r", "-z", "--name-only", commit).split("\0")  # those in this folder and below it
    others = set[str]()
    outs: list[Out] = []
    for file in files:
        if file != LOCK and not file.endswith((f"/{LOCK}", ".dvc")):
            continue
        text = git("show", f"{commit}:./{file}")
        try:
            outs += lock_outs(text) if file == LOCK else []
        except ValueError:
            others |= hashes(text)
        if file != LOCK:
            others |= hashes(text)
    return Experiment(name, ended, tuple(outs), frozenset(others))


def of_refs() -> set[str]:
    """What branches, tags, stashes and the queue name, in any commit of theirs; HEAD of every worktree is one."""
    refs = git("for-each-ref", "--format=%(refname)").splitlines()
    starts = [ref for ref in refs if not ref.startswith("refs/exps/") or ref in _STASHES]
    for ref in set(refs).intersection(_STASHES):
        starts += git("reflog", "show", "--format=%H", ref).split()
    worktrees = git("worktree", "list", "--porcelain").splitlines()
    starts += [line.split()[1] for line in worktrees if line.startswith("HEAD ") and set(line[5:]) != {"0"}]
    patterns = [f":(top,glob)**/{name}" for name in (LOCK, "*.dvc")]
    given = "\n".join([*starts, "--", *patterns, ""])
    listed = git("rev-list", "--objects", "--full-history", "--stdin", given=given) if starts else ""
    blobs = [line.split(" ", 1) for line in listed.splitlines()]
    wanted = [words[0] for words in blobs if len(words) == 2 and words[1].endswith((LOCK, ".dvc"))]
    return hashes(git("cat-file", "--batch", given="\n".join([*wanted, ""]))) if wanted else set()


def of_workspaces(place: Path) -> set[str]:
    """What this workspace names, and every other worktree, which may share the cache: their files as they are, and as
    git's index has dvc.lock. place: of the project in its repository."""
    worktrees = [line.removeprefix("worktree ") for line in git("worktree", "list", "--porcelain").splitlines()]
    there = {graph.resolve().parent for path in worktrees if (graph := Path(path) / place / GRAPH).is_file()}
    return set().union(*map(_of_workspace, {Path.cwd(), *there}))


def _of_workspace(folder: Path) -> set[str]:
    here = ("-C", str(folder))
    listed = git(*here, "ls-files", "-z", "--cached", "--others", "--", f"*{LOCK}", "*.dvc")
    named = set[str]()
    for file in {LOCK, *filter(None, listed.split("\0"))}:
        with suppress(OSError):
            named |= hashes((folder / file).read_text(encoding="utf-8", errors="replace"))
        with suppress(SystemExit):  # git has none
            named |= hashes(git(*here, "show", f":./{file}"))
    return named


def linked(cache: Path) -> set[str]:
    """The objects of a cache in a folder to which symbolic links lead from the models in the workspace."""
    models, folder = Path(MODELS), cache.resolve()
    links = (file.resolve() for file in [models, *models.rglob("*")] if file.is_symlink())
    return {"".join(target.parts[-2:]) for target in links if target.is_relative_to(folder)}


def of_run_cache(folder: Path, stages: Iterable[Out]) -> list[Out]:
    """The outs that DVC's run cache in a folder remembers; the stages' names are those of outs with their paths."""
    names = {out.path: out.stage for out in stages}
    found = []
    for file in sorted(file for file in folder.glob("*/*/*") if file.is_file()):
        with suppress(OSError, yaml.YAMLError, AttributeError, KeyError, TypeError):
            record = yaml.load(file.read_text(encoding="utf-8"), _LOADER)  # noqa: S506 -- a safe loader
            found += [Out(names.get(out.path, ""), out.path, out.hash) for out in stage_outs("", record)]
    return found
