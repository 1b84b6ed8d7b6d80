"""What the other stages wrote. The report is made from whatever has been run."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from rlhf_lib.common import left_out, paths
from rlhf_lib.common.dvc_project import changed, look_up
from rlhf_lib.common.policies import METHODS, POLICIES, TRAINERS
from rlhf_lib.common.rows import read_jsonl
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.evaluation.samples import DATASET, mode_name
from rlhf_lib.models import contract

Metrics = Mapping[str, Any]
Sample = dict[str, Any]
Curve = list[dict[str, float | None]]

PARTS = ("train", "eval")
SCORERS = ("reward", "judge")
LOCK = Path("dvc.lock")


@dataclass(frozen=True)
class Inputs:
    """Everything the page shows; what is not there is empty.

    modes: the sampling modes in the order of params.yaml, the headline first.
    evaluations: metrics/eval/<policy>.json by policy, best_of_n: metrics/eval/best_of_n.json.
    samples: data/samples/<policy>.jsonl by policy and mode, each sample with its `kl` (nats).
    curves: metrics/<stage>/<train|eval>.tsv by (stage, "train" or "eval").
    reward_models, scores: metrics/<stage>/summary.json and data/scores/<stage>.jsonl of the reward model and the judge.
    hashes: (stage, path, md5) of every out in dvc.lock.
    attainable, attainable_curve: metrics/attainable.json and .tsv.
    lm_eval: metrics/lm_eval.json, by model and task; make lm-eval writes it.
    left_out: why stages that train, best_of_n or attained left themselves out, by stage.
    model: what stage base found out about the model, part by part, in words.
    """

    params: Metrics
    modes: list[str]
    evaluations: dict[str, Metrics]
    best_of_n: Metrics
    samples: dict[str, dict[str, list[Sample]]]
    overoptimisation: Curve
    curves: dict[tuple[str, str], Curve]
    reward_models: dict[str, Metrics]
    scores: dict[str, list[Sample]]
    llm_judge: Metrics
    data: Metrics
    hashes: list[tuple[str, str, str]]
    left_out: dict[str, str] = field(default_factory=dict)
    model: list[tuple[str, str]] = field(default_factory=list)
    attainable: Metrics = field(default_factory=dict)
    attainable_curve: Curve = field(default_factory=list)
    lm_eval: Metrics = field(default_factory=dict)

    @property
    def headline(self) -> str:
        return self.modes[0]

    @property
    def methods(self) -> list[str]:
        """The methods that params.yaml wants trained."""
        return [method for method in METHODS if self.params["methods"][method]]

    @property
    def policies(self) -> list[str]:
        """The policies that have been evaluated."""
        return [policy for policy in POLICIES if policy in self.evaluations]

    def measured(self, policy: str, mode: str | None = None) -> Metrics:
        """The numbers of a policy in a mode (the headline by default); empty where there are none."""
        return self.evaluations.get(policy, {}).get(mode or self.headline, {})

    def drawn(self, policy: str, mode: str | None = None) -> list[Sample]:
        """The samples of a policy in a mode (the headline by default); empty where there are none."""
        return self.samples.get(policy, {}).get(mode or self.headline, [])

    @property
    def prompts(self) -> int:
        """How many test prompts the numbers of the headline mode rest on."""
        return max((len({sample["id"] for sample in self.drawn(policy)}) for policy in self.policies), default=0)

    def chosen(self) -> list[Sample]:
        """The dataset's best answer to each test prompt, as it was scored beside the first policy that has been."""
        rows = next((modes[DATASET] for modes in self.samples.values() if modes.get(DATASET)), [])
        return [row for row in rows if row["chosen"]]

    def known(self, key: str) -> bool:
        """Whether every evaluated policy has the number `key` in the headline mode."""
        return bool(self.policies) and all(self.measured(p).get(key) is not None for p in self.policies)


def load() -> Inputs:
    """The inputs in the working directory; a `SystemExit` of one line for a broken file or one of other params."""
    params = load_yaml(PARAMS_FILE)
    modes = [mode_name(temperature) for temperature in params["evaluate"]["temperatures"]]
    summaries = {stage: paths.summary(stage) for stage in TRAINERS} | {"best_of_n": paths.evaluation("best_of_n")}
    summaries = {stage: path for stage, path in summaries.items() if params["methods"].get(stage, True)}
    summaries["attained"] = paths.ATTAINABLE
    return Inputs(
        params=params,
        modes=modes,
        evaluations=load_evaluations(modes),
        best_of_n=_measured("best_of_n"),
        samples={policy: _samples(policy) for policy in POLICIES if _file(paths.samples(policy))},
        overoptimisation=read_curve(paths.OVEROPTIMISATION),
        curves={(stage, part): read_curve(paths.curve(stage, part)) for stage in TRAINERS for part in PARTS},
        reward_models={s: m for s in SCORERS if (m := _json(paths.summary(s)).get(s))},
        scores={s: read_jsonl(path) for s in SCORERS if (path := _file(paths.scores(s)))},
        llm_judge=_json(paths.LLM_JUDGE_METRICS).get("llm_judge", {}),
        data=_json(paths.DATA_METRICS),
        hashes=hashes(),
        left_out={stage: why for stage, path in summaries.items() if (why := left_out.reason(path))},
        model=list(known.told()) if (known := contract.read(paths.BASE)) else [],
        attainable=_json(paths.ATTAINABLE).get("attainable", {}),
        attainable_curve=read_curve(paths.ATTAINABLE_CURVE),
        lm_eval=_json(paths.LM_EVAL),
    )


def load_evaluations(modes: Sequence[str]) -> dict[str, Metrics]:
    """metrics/eval/<policy>.json of each policy that has been evaluated; each must have the headline mode."""
    found = {}
    for policy in POLICIES:
        if measured := _measured(policy):
            if modes[0] not in measured:
                raise SystemExit(
                    f"{paths.evaluation(policy)}: measured with other temperatures; run dvc repro measure@{policy}"
                )
            found[policy] = measured
    return found


def _measured(name: str) -> Metrics:
    """metrics/eval/<name>.json; empty where it was left out."""
    path = paths.evaluation(name)
    return {} if left_out.reason(path) else _json(path)


def read_curve(path: str | Path) -> Curve:
    """The rows of a TSV file as numbers, None for an empty cell; no rows where there is no file."""
    if not _file(path):
        return []
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [{key: float(cell) if cell else None for key, cell in row.items()} for row in rows]


def _file(path: str | Path) -> Path | None:
    return Path(path) if Path(path).is_file() else None


def _json(path: str) -> Any:
    if not _file(path):
        return {}
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise SystemExit(f"{path}: not JSON: {error}; dvc repro writes it again") from None


def _samples(policy: str) -> dict[str, list[Sample]]:
    by_mode: dict[str, list[Sample]] = {}
    for sample in read_jsonl(paths.samples(policy)):
        if is_number(sample.get("logprob")) and is_number(sample.get("ref_logprob")):
            sample["kl"] = sample["logprob"] - sample["ref_logprob"]
        by_mode.setdefault(sample["mode"], []).append(sample)
    return by_mode


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a number to show: not missing, not NaN."""
    return isinstance(value, int | float) and math.isfinite(value)


def error(measured: Mapping[str, Any], key: str) -> float:
    """The standard error of the number `key`; 0 where it is not known, as of a single prompt."""
    return measured.get(f"{key}_se") or 0.0


def lock_stages() -> dict[str, Any]:
    """The stages of dvc.lock, by name; none where DVC has recorded nothing. A `ParamsError` where it is broken."""
    try:
        return (load_yaml(LOCK).get("stages") or {}) if LOCK.is_file() else {}
    except ParamsError as fault:
        raise ParamsError(f"{fault}; make repro repairs it") from None


def other_params(stage: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """The params that a stage of dvc.lock ran with and that have other values in `params`."""
    ran = (stage.get("params") or {}).get(str(PARAMS_FILE)) or {}
    return [name for key, value in ran.items() for name in changed(key, value, look_up(params, key))]


def hashes() -> list[tuple[str, str, str]]:
    """(stage, path, md5) of every out of data and models that DVC has recorded."""
    outs = [
        (stage, out["path"], out.get("md5", ""))
        for stage, entry in lock_stages().items()
        for out in entry.get("outs", [])
    ]
    return sorted((s, path, md5) for s, path, md5 in outs if path.startswith(("data/", "models/")))
