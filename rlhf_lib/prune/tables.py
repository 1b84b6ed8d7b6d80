"""The disk in tables: by what lies there, by stage, and by experiment."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rlhf_lib.prune.around import State, size_of
from rlhf_lib.prune.cache import Cache
from rlhf_lib.prune.idle import workspaces
from rlhf_lib.prune.names import Experiment, Out
from rlhf_lib.prune.plan import Plan
from rlhf_lib.report.tables import markdown_table

KINDS = {"models": "models", "data": "data"}  # by an out's first folder
OTHERS, UNKNOWN = "metrics and pages", "of nothing known"
SMALL = 0.01  # of the cache: stages with less are told in one line
FOLDERS = {"logs": "logs of training", "dist": "what make export wrote"}


@dataclass(frozen=True)
class Disk:
    """What the disk holds and who names it."""

    cache: Cache
    experiments: Sequence[Experiment]
    workspace: Sequence[Out]
    run_cache: Sequence[Out]
    protected: set[str]  # names
    linked: set[str]  # objects that the workspace's models are links to
    runs: Path  # DVC's run cache
    states: Sequence[State]

    @cached_property
    def origins(self) -> dict[str, tuple[str, str]]:
        """The stage and the kind of each object, by whoever names it first: the workspace, an experiment, the run
        cache."""
        outs = [*self.workspace, *(out for e in self.experiments for out in e.outs), *self.run_cache]
        found: dict[str, tuple[str, str]] = {}
        for name, out in {out.hash: out for out in reversed(outs)}.items():
            kind = KINDS.get(out.path.partition("/")[0], OTHERS)
            for member in self.cache.closure({name}) - found.keys():
                found[member] = (out.stage.partition("@")[0] or UNKNOWN, kind)
        return found

    @cached_property
    def stays(self) -> set[str]:
        """The objects that the workspace, branches, tags, stashes or the queue name."""
        return self.cache.closure(self.protected)

    def of(self, experiment: Experiment) -> set[str]:
        """The objects that an experiment names."""
        return self.cache.closure({*experiment.others, *(out.hash for out in experiment.outs)})


def told(disk: Disk, plan: Plan, extra: dict[str, int]) -> str:
    """The three tables; `extra`: bytes that go of the first one's other lines, by their first column."""
    parts = [_places(disk, plan, extra), _stages(disk, plan)]
    if disk.experiments:
        parts.append(_experiments(disk, plan))
    return "\n\n".join(parts)


def human(size: float) -> str:
    """Bytes to read, in powers of 1000: 812 B, 1.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _places(disk: Disk, plan: Plan, extra: dict[str, int]) -> str:
    size, going = Counter[str](), Counter[str]()
    for name, taken in disk.cache.sizes.items():
        kind = disk.origins.get(name, ("", UNKNOWN))[1]
        size[kind] += taken
        going[kind] += disk.cache.freed[name] if name in plan.objects else 0
    rows = [(f"DVC's cache: {kind}", size[kind], going[kind]) for kind in ("models", "data", OTHERS, UNKNOWN)]
    stale = sum(state.size for state in disk.states if state.stale)
    others = {
        "DVC's run cache": size_of(disk.runs),
        "workspace: models/, data/, report/": sum(size_of(Path(folder)) for folder in ("models", "data", "report")),
        "workspaces that killed experiments left": sum(map(size_of, workspaces())),
        "checkpoints/ of the params as they are": sum(state.size for state in disk.states) - stale,
        "checkpoints/ of other params": stale,
        **{f"{folder}/: {about}": size_of(Path(folder)) for folder, about in FOLDERS.items()},
    }
    rows += [(what, taken, extra.get(what, 0)) for what, taken in others.items()]
    kept = [row for row in rows if row[1]]
    kept.append(("together", sum(row[1] for row in kept), sum(row[2] for row in kept)))
    return _table(("what", "size", "goes"), kept)


def _stages(disk: Disk, plan: Plan) -> str:
    swept = set[str]().union(*map(disk.of, disk.experiments)) - disk.stays
    numbers: dict[str, list[int]] = defaultdict(lambda: [0] * 5)
    for name, taken in disk.cache.sizes.items():
        whose = 1 if name in disk.stays else 2 if name in swept else 3
        row = numbers[disk.origins.get(name, (UNKNOWN, ""))[0]]
        row[0] += taken
        row[whose] += taken
        row[4] += disk.cache.freed[name] if name in plan.objects else 0
    least = SMALL * sum(disk.cache.sizes.values())
    small = [row for row in numbers.values() if row[0] < least]
    rows = sorted((item for item in numbers.items() if item[1][0] >= least), key=lambda item: -item[1][0])
    if small:
        rows.append((f"({len(small)} others)", [sum(column) for column in zip(*small, strict=True)]))
    header = ("stage", "in the cache", "workspace and git", "experiments alone", "nothing names", "goes")
    return _table(header, [(stage, *row) for stage, row in rows])


def _experiments(disk: Disk, plan: Plan) -> str:
    named = {experiment: disk.of(experiment) for experiment in disk.experiments}
    times = Counter(name for objects in named.values() for name in objects)
    size = disk.cache.size
    rows = []
    for experiment, objects in named.items():
        alone = {name for name in objects - disk.stays if times[name] == 1}
        with_others = objects - disk.stays - alone
        going = sum(disk.cache.freed[name] for name in plan.going.get(experiment, ()))
        ended = time.strftime("%Y-%m-%d", time.localtime(experiment.ended))
        rows.append((experiment.name, ended, size(objects & disk.stays), size(with_others), size(alone), going))
    header = ("experiment", "ended", "shared with git", "shared with others", "its own", "goes")
    return _table(header, rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> str:
    cells = [[cell if isinstance(cell, str) else human(cell) if cell else "" for cell in row] for row in rows]
    return markdown_table(header, cells)
