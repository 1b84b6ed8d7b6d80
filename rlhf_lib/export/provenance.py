"""Which run a model and its numbers are of, as dvc.lock records it, and whether what lies here is still that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf_lib.common import paths
from rlhf_lib.common.dvc_project import md5
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.report.inputs import lock_stages

_CODE = ("rlhf_lib/", "stages/", "rewards/")


@dataclass(frozen=True)
class Run:
    """The stages of a dvc.lock, by name. fault: why there are none, where it cannot be read."""

    stages: Mapping[str, Mapping[str, Any]]
    fault: str | None = None

    @staticmethod
    def read() -> Run:
        """That of the working directory; one without stages where there is none, or none that can be read."""
        try:
            return Run(lock_stages())
        except ParamsError as fault:
            return Run({}, str(fault))

    def out(self, path: str) -> str | None:
        """The recorded hash of an out."""
        return next((md5 for _, name, md5 in self._all("outs") if name == path), None)

    def dep(self, stage: str, path: str) -> str | None:
        """The hash that a dep had when a stage ran."""
        return next((md5 for name, dep, md5 in self._all("deps") if (name, dep) == (stage, path)), None)

    def maker(self, hashed: str | None) -> str | None:
        """The stage that wrote a model of this hash, wherever it lies now."""
        found = ((stage, path, md5) for stage, path, md5 in self._all("outs") if path == paths.model(stage))
        return next((stage for stage, _, md5 in found if hashed is not None and md5 == hashed), None)

    def way(self, stage: str) -> list[str]:
        """The stages on whose outs a stage rests, and itself, in the order in which they run."""
        made_by = {path: name for name, path, _ in self._all("outs")}
        seen: list[str] = []

        def visit(name: str) -> None:
            above = {made_by[path] for owner, path, _ in self._all("deps") if owner == name and path in made_by}
            for other in sorted(above - {name, "inputs", *seen}):
                visit(other)
            if name not in seen:
                seen.append(name)

        visit(stage)
        return seen

    def read_by(self, stages: Sequence[str]) -> set[str]:
        """The deps of stages, less code."""
        return {path for stage, path, _ in self._all("deps") if stage in stages and not path.startswith(_CODE)}

    def params(self, *stages: str) -> dict[str, Any]:
        """The params that stages ran with, nested as in params.yaml."""
        nested: dict[str, Any] = {}
        for stage in stages:
            for name, value in (self.stages.get(stage, {}).get("params", {}).get("params.yaml") or {}).items():
                *parents, last = name.split(".")
                place = nested
                for parent in parents:
                    place = place.setdefault(parent, {})
                if not isinstance(place.get(last), dict):
                    place[last] = dict(value) if isinstance(value, dict) else value
                elif isinstance(value, dict):
                    place[last] |= value
        return nested

    def evaluated(self, stage: str | None) -> dict[str, Any]:
        """The params of a policy's evaluation; empty where it had none."""
        return self.params(f"evaluate@{stage}").get("evaluate", {})

    def stop_strings(self, stage: str | None) -> list[str]:
        """The texts that ended answers, besides tokens, while a stage trained its model: PPO has such a param."""
        section = self.params(str(stage)).get(str(stage), {})
        return section.get("stop_strings") or []

    def broken(self, stage: str) -> str | None:
        """Why what a stage wrote is not of the run that is recorded beside it: an out on the way to it has another hash
        than when it was read; None where all are the same."""
        for name in self.way(stage):
            for owner, path, read in self._all("deps"):
                made = self.out(path) if owner == name and not path.startswith(_CODE) else None
                if made is not None and made != read:
                    return f"{path} is not the one that stage {name} read"
        return None

    def stale(self, name: str) -> str | None:
        """Why metrics/eval/<name>.json and the samples here are not of the recorded model; None where they are, or are
        not here. name: of a policy, or best_of_n."""
        numbers, samples = paths.evaluation(name), paths.samples(name)
        if self.out(numbers) is None:
            return f"dvc.lock has no {numbers}"
        if why := self.broken(f"measure@{name}"):
            return why
        edited = (file for file in (numbers, samples) if Path(file).exists() and md5(file) != self.out(file))
        return next((f"{file} is not what dvc.lock records" for file in edited), None)

    def alike(self, one: str, other: str) -> bool:
        """Whether two policies answered the same prompts with the same sampling, and were scored by the same models."""
        own = {paths.model(one), paths.model(other)}
        conditions = [
            {path: md5 for owner, path, md5 in self._all("deps") if owner == f"evaluate@{policy}" and path not in own}
            for policy in (one, other)
        ]
        shared = conditions[0].keys() & conditions[1].keys()
        return all(conditions[0][path] == conditions[1][path] for path in shared if not path.startswith(_CODE)) and (
            self.params(f"evaluate@{one}") == self.params(f"evaluate@{other}")
        )

    def _all(self, what: str) -> Iterator[tuple[str, str, str]]:
        for stage, entry in self.stages.items():
            for each in entry.get(what) or []:
                yield stage, each["path"], each.get("md5", "")
