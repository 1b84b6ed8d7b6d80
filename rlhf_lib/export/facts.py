"""What is known of a model that is exported: what it is, and what the run in the working directory says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf_lib.common import paths
from rlhf_lib.common.dvc_project import md5
from rlhf_lib.common.policies import POLICIES
from rlhf_lib.evaluation.samples import mode_name
from rlhf_lib.export.provenance import Run
from rlhf_lib.report import inputs as report

NO_FILES = hashlib.md5(b"{}\n").hexdigest()  # of the manifest of a stage that reads no local file


@dataclass(frozen=True)
class Model:
    """What is exported. parameters: how many; stops: what ends an answer, as text; sampling: of its generation config;
    context: tokens, None where it knows no limit."""

    name: str
    dtype: str
    parameters: int
    stops: Sequence[str]
    sampling: Mapping[str, Any]
    context: int | None


@dataclass(frozen=True)
class Facts:
    """What the run in the working directory says of a model. stage: what made it, None where dvc.lock knows no such
    model; doubt: why its numbers are not told; inputs: those of the report, with the policies that can be compared."""

    run: Run
    hashed: str
    stage: str | None
    doubt: str | None
    inputs: report.Inputs | None

    @property
    def params(self) -> dict[str, Any]:
        """Of all stages on the way to the model."""
        return self.run.params(*self.run.way(self.stage)) if self.stage else {}

    @property
    def base_model(self) -> str | None:
        """The id of the hub's model that it began as; None where that was a fresh one or a local directory, whose files
        stage inputs has hashed for stage base."""
        name = self.params.get("base", {}).get("model_name_or_path")
        return name if name and self.run.dep("base", f"{paths.INPUTS}/base.json") == NO_FILES else None


def of(source: str | Path) -> Facts:
    """What dvc.lock, metrics/ and data/samples say of the model in a directory."""
    run, hashed = Run.read(), str(md5(source))
    stage = run.maker(hashed)
    if stage is None:
        return Facts(run, hashed, None, _unknown(run, source), None)
    doubt = run.stale(stage) if stage in POLICIES else f"stage {stage} makes no policy, and is not evaluated"
    if doubt:
        return Facts(run, hashed, stage, doubt, None)
    try:
        found = report.load()
    except (SystemExit, KeyError) as fault:
        return Facts(run, hashed, stage, f"the run's files cannot be read ({fault})", None)
    if stage not in found.policies:
        return Facts(run, hashed, stage, f"{paths.evaluation(stage)} is not here", None)
    if found.headline != (used := mode_name(run.evaluated(stage)["temperatures"][0])):
        return Facts(run, hashed, stage, f"params.yaml now has {found.headline} first, and the run had {used}", None)
    kept = [name for name in found.policies if not run.stale(name) and run.alike(stage, name)]
    return Facts(run, hashed, stage, None, _less(found, run, kept))


def _unknown(run: Run, source: str | Path) -> str:
    if run.fault:
        return run.fault
    if run.out(str(Path(source))) is None:
        return "dvc.lock knows no model with these files"
    return "its files are not those that dvc.lock records: they were changed, or are of another run"


def _less(found: report.Inputs, run: Run, kept: Sequence[str]) -> report.Inputs:
    """The inputs of the report with these policies alone, and without what is of another run."""
    best = not run.stale("best_of_n") and "sft" in kept
    is_data = md5(paths.DATA_METRICS) == run.out(paths.DATA_METRICS)
    return replace(
        found,
        evaluations={name: found.evaluations[name] for name in kept},
        samples={name: found.samples[name] for name in kept if name in found.samples},
        best_of_n=found.best_of_n if best else {},
        data=found.data if is_data else {},
    )
