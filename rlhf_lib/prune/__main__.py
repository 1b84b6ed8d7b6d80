"""What takes how much disk; and with --apply, free the models of experiments. Their metrics, curves and samples stay.

    python -m rlhf_lib.prune                            a dry run: what there is, and what would go
    python -m rlhf_lib.prune --apply                    free it
    python -m rlhf_lib.prune --keep 'best-*' --apply    but for experiments of these names

Nothing goes that the workspace names (its files as they are), a branch, a tag or a stash in any commit of it, or an
experiment that waits or runs. What is in DVC's remote stays there. `dvc exp apply NAME; dvc repro` trains a model
again that is gone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rlhf_lib.check import surroundings
from rlhf_lib.common.place import inside
from rlhf_lib.prune import around, names
from rlhf_lib.prune.cache import Cache
from rlhf_lib.prune.idle import resting, workspaces
from rlhf_lib.prune.plan import Choice, Plan, plan
from rlhf_lib.prune.tables import Disk, human, told


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    given = _parser().parse_args(arguments)
    try:
        _prune(given)
    except BrokenPipeError:
        raise  # of the output, which every command tells alike
    except OSError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}; the same command goes on") from None
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on") from None


def _prune(given: argparse.Namespace) -> None:
    repo = _repo()
    root, folder = Path(repo.root_dir).resolve(), Path(repo.cache.local.path)
    shared = not folder.resolve().is_relative_to(root)
    if shared and given.apply and not given.shared:
        raise SystemExit(
            f"{folder}: a cache outside this project, in which another clone may name what nothing names here; "
            "--shared if none does"
        )
    with ExitStack() as stack:
        if given.apply:
            stack.enter_context(resting(repo))
        disk = _disk(repo, folder)
        choice = Choice(given.experiments, given.keep, given.older_than, given.unnamed)
        found = plan(disk.cache, disk.experiments, choice, disk.protected, disk.linked, disk.run_cache)
        extra = {}
        if given.workspaces:
            extra["workspaces that killed experiments left"] = sum(map(around.size_of, workspaces()))
        stale = [state for state in disk.states if state.stale] if given.checkpoints else []
        extra["checkpoints/ of other params"] = sum(state.size for state in stale)
        print(told(disk, found, extra), end="\n\n")
        if given.apply:
            _apply(disk, found, stale, given.workspaces)
        else:
            _say(disk, found, sum(extra.values()), shared)


def _disk(repo: Any, folder: Path) -> Disk:
    cache, experiments = Cache(folder), names.experiments()
    lock = Path(names.LOCK)
    try:
        workspace = names.lock_outs(lock.read_text(encoding="utf-8")) if lock.is_file() else []
    except ValueError:
        raise SystemExit(f"{lock}: it was cut short, or a merge left its marks in it; make repro repairs it") from None
    protected = names.of_refs() | names.of_workspaces(inside())
    runs = Path(repo.stage_cache.cache_dir)
    outs = [*workspace, *(out for experiment in experiments for out in experiment.outs)]
    known, links = names.of_run_cache(runs, outs), names.linked(folder)
    return Disk(cache, experiments, workspace, known, protected, links, runs, around.states())


def _apply(disk: Disk, found: Plan, stale: list[around.State], with_workspaces: bool) -> None:
    disk.cache.restore(found.kept)
    freed = disk.cache.remove(found.objects)
    freed += around.remove_states(stale) + (around.remove_workspaces() if with_workspaces else 0)
    if not freed:
        print("nothing to free")
        return
    print(f"freed {human(freed)} ({freed} bytes); make experiments lists the experiments as before")


def _say(disk: Disk, found: Plan, besides: int, shared: bool) -> None:
    going = sum(disk.cache.freed[name] for name in found.objects) + besides
    if not going:
        print("nothing to free")
        return
    linked = disk.cache.size(found.objects) + besides - going
    if linked:
        print(f"{human(linked)} more are in the workspace too by hard links, and stay on the disk until they go there")
    how = "--apply (make prune APPLY=1)" + (" and --shared" if shared else "")
    print(f"a dry run: {how} would free {human(going)} ({going} bytes)")


def _repo() -> Any:
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError

    if told := surroundings.nameless():
        raise SystemExit(told)
    try:
        repo = Repo(".")
        if Path(repo.root_dir).resolve() != Path.cwd().resolve():
            raise SystemExit("run it in the project's folder, where dvc.yaml is")
        if repo.config["core"].get("no_scm"):
            raise SystemExit("core.no_scm: without git there are no experiments to prune")
        names.git("rev-parse", "--git-dir")
        return repo
    except (NotDvcRepoError, SCMError) as error:
        raise SystemExit(f"no project of DVC and git here: {error}") from None


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not days >= 0:
        raise argparse.ArgumentTypeError(f"{text}: give a number of days, 0 or more")
    return days


def _yes(text: str) -> bool:
    """A switch as people write it; nothing is no."""
    known = {"1": True, "yes": True, "true": True, "": False, "0": False, "no": False, "false": False}
    if (word := text.strip().lower()) not in known:
        raise argparse.ArgumentTypeError(f"{text}: APPLY takes 1, yes or true; left out, 0, no or false: a dry run")
    return known[word]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_lib.prune", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--apply", type=_yes, nargs="?", const=True, default=False, metavar="yes", help="free it; without: only tell")
    add(
        "--experiments",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="of these experiments only; * fits anything",
    )
    add("--keep", nargs="+", action="extend", default=[], metavar="NAME", help="not of these")
    add("--older-than", type=_days, default=0.0, metavar="DAYS", help="of those that ended so long ago")
    add(
        "--unnamed",
        action="store_true",
        help="models too that only DVC's run cache knows: of removed experiments and of earlier runs without a commit",
    )
    add(
        "--checkpoints",
        action="store_true",
        help="what stages of other params, code or data would go on from, also failed experiments",
    )
    add("--workspaces", action="store_true", help="the workspaces that killed experiments have left")
    add("--shared", action="store_true", help="a cache outside the project too: no other clone uses it")
    return parser


if __name__ == "__main__":
    main()
