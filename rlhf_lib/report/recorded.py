"""Whether what the report compares is of one run, which DVC sees to only where it runs the stage itself.

`git checkout` brings metrics/ and dvc.lock of another commit and leaves data/ as it is, until `dvc checkout`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf_lib.common import paths
from rlhf_lib.common.dvc_project import file_md5
from rlhf_lib.common.policies import POLICIES
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.terminal import listed
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.report.inputs import SCORERS, lock_stages, other_params

Stages = Mapping[str, Any]  # of dvc.lock, by name

_WITHOUT = ("inputs", "select", "report")  # stages that the page does not rest on


def check() -> None:
    """A `ParamsError` where files lie here that dvc.lock does not record; a note on stages that are to run again."""
    stages = lock_stages()
    if told := fault(stages):
        raise ParamsError(told)
    for line in behind(stages) + edited(stages, load_yaml(PARAMS_FILE)):
        print(f"note: {line}")


def read() -> list[str]:
    """The files of finished stages whose numbers and texts the page compares."""
    evaluated = [file for name in (*POLICIES, "best_of_n") for file in (paths.evaluation(name), paths.samples(name))]
    scored = [file for name in SCORERS for file in (paths.summary(name), paths.scores(name))]
    others = [paths.OVEROPTIMISATION, paths.ATTAINABLE, paths.ATTAINABLE_CURVE, paths.LLM_JUDGE_METRICS]
    return [*evaluated, *scored, *others, paths.DATA_METRICS]


def fault(stages: Stages) -> str | None:
    """Which of them are not what dvc.lock records; None where all are, or are not here."""
    recorded = _hashes(stages)
    others = [file for file in read() if file in recorded and Path(file).is_file() and file_md5(file) != recorded[file]]
    if not others:
        return None
    return (
        f"{listed(others)}: not of the run that dvc.lock records, as after git checkout; dvc checkout "
        "brings that run's, or, where the cache lacks them, dvc repro"
    )


def behind(stages: Stages) -> list[str]:
    """A line on each stage that read another run's out than dvc.lock has now, as where only a part was run again."""
    made = _hashes(stages)
    lines = []
    for stage, entry in stages.items():
        deps = entry.get("deps", []) if stage not in _WITHOUT else []
        old = [dep["path"] for dep in deps if made.get(dep["path"], dep.get("md5")) != dep.get("md5")]
        if old:
            lines.append(f"{stage}: made from another run's {listed(old)}; dvc repro {stage}")
    return lines


def edited(stages: Stages, params: Mapping[str, Any]) -> list[str]:
    """A line on the params that are not what stages ran with: the page would show them as those of its models."""
    found = [
        (stage, name)
        for stage, entry in stages.items()
        if stage not in _WITHOUT
        for name in other_params(entry, params)
    ]
    if not found:
        return []
    ran, names = (listed(list(dict.fromkeys(each))) for each in zip(*found, strict=True))
    return [
        f"{names}: not what {ran} ran with, and the page shows what params.yaml has; dvc repro brings them together"
    ]


def _hashes(stages: Stages) -> dict[str, str]:
    """The hash of each out."""
    return {out["path"]: out["md5"] for entry in stages.values() for out in entry.get("outs", []) if "md5" in out}
