"""What may leave the cache: the models of chosen experiments, as far as nothing else names them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from rlhf_lib.prune.cache import Cache
from rlhf_lib.prune.names import Experiment, Out

DAY = 24 * 60 * 60  # seconds


@dataclass(frozen=True)
class Choice:
    """Which experiments' models are to go: by patterns of names (none: all) and of names to keep, and by age."""

    experiments: Sequence[str] = ()
    keep: Sequence[str] = ()
    older_than: float = 0.0  # days
    unnamed: bool = False  # models too that only the run cache knows

    def of(self, there: Sequence[Experiment]) -> list[Experiment]:
        """The chosen ones; a `SystemExit` for a pattern that fits none."""
        for pattern in (*self.experiments, *self.keep):
            if not any(fnmatchcase(experiment.name, pattern) for experiment in there):
                raise SystemExit(f"{pattern}: no experiment is called so; make experiments lists them")
        latest = time.time() - self.older_than * DAY
        return [experiment for experiment in there if experiment.ended <= latest and self._fits(experiment.name)]

    def _fits(self, name: str) -> bool:
        wanted = not self.experiments or any(fnmatchcase(name, pattern) for pattern in self.experiments)
        return wanted and not any(fnmatchcase(name, pattern) for pattern in self.keep)


@dataclass(frozen=True)
class Plan:
    """What goes, by the experiment that named it first (None: none does), and the names that must stay."""

    going: dict[Experiment | None, set[str]]
    kept: set[str]

    @property
    def objects(self) -> set[str]:
        """Everything that goes."""
        return set().union(*self.going.values())


def plan(
    cache: Cache,
    experiments: Sequence[Experiment],
    choice: Choice,
    protected: Iterable[str],
    linked: Iterable[str] = (),
    run_cache: Iterable[Out] = (),
) -> Plan:
    """What a choice frees.

    It stays where `protected` (the names of workspace, branches, tags, stashes and queue), an experiment that is not
    chosen, or anything but a model of a chosen one names it. So does what nothing names, with the files of its
    folders: only with `choice.unnamed` the models go that `run_cache` knows. A model with an object in `linked` that
    only models have is in use, and stays whole.
    """
    chosen = choice.of(experiments)
    kept = set(protected)
    for experiment in experiments:
        kept |= experiment.others
        kept.update(out.hash for out in experiment.outs if experiment not in chosen or not out.is_model)
    named = {out.hash for experiment in experiments for out in experiment.outs}
    forgotten = {out.hash for out in run_cache if choice.unnamed and out.is_model} - named
    lists = {name for name in cache.sizes if name.endswith(".dir")} - named - kept - forgotten - cache.left
    models = [(e, {out.hash for out in e.outs if out.is_model}) for e in chosen]
    stays = cache.closure(kept | lists)
    used = set(linked) - stays
    kept |= {name for _, hashes in models for name in hashes if used & cache.closure({name})}
    going: dict[Experiment | None, set[str]] = {}
    taken = cache.closure(kept | lists)
    for whose, hashes in [*models, (None, forgotten | cache.left)]:
        objects = cache.closure(hashes) - taken
        going.setdefault(whose, set()).update(objects)
        taken |= objects
    return Plan(going, kept)
