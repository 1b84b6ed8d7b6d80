"""Every section of params.yaml, and the faults of the params as such: within a section, and between sections.

A stage checks its own section when it runs; this says what is wrong before the first stage does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf_lib.attainable.params import AttainableParams
from rlhf_lib.base.params import BaseParams
from rlhf_lib.candidates.params import CandidatesParams
from rlhf_lib.check import circles, together
from rlhf_lib.common.launching import processes
from rlhf_lib.common.policies import MethodsParams
from rlhf_lib.common.schema import PARAMS_FILE, check_launch, check_policy, examine
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.data.load.params import LoadParams
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.dpo.params import DPOParams, ReferenceParams
from rlhf_lib.evaluation.params import BestOfNParams, EvaluateParams
from rlhf_lib.inputs.graph import Graph
from rlhf_lib.kto.params import KTOParams
from rlhf_lib.llm_judge.params import LLMJudgeParams
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.negatives.params import NegativesParams
from rlhf_lib.ppo.params import PPOParams
from rlhf_lib.report.params import ReportParams
from rlhf_lib.reward.params import JudgeParams, RewardParams
from rlhf_lib.rft.params import RFTParams
from rlhf_lib.sft.params import SFTParams

SECTIONS: dict[str, type] = {
    "methods": MethodsParams,
    "compute": ComputeParams,
    "load": LoadParams,
    "prepare": PrepareParams,
    "base": BaseParams,
    "sft": SFTParams,
    "negatives": NegativesParams,
    "reward": RewardParams,
    "judge": JudgeParams,
    "reference": ReferenceParams,
    "dpo": DPOParams,
    "ppo": PPOParams,
    "candidates": CandidatesParams,
    "rft": RFTParams,
    "kto": KTOParams,
    "evaluate": EvaluateParams,
    "llm_judge": LLMJudgeParams,
    "report": ReportParams,
    "attainable": AttainableParams,
    "best_of_n": BestOfNParams,
}


def check_all(params: Mapping[str, Any], path: Path = PARAMS_FILE) -> None:
    """A `ParamsError` for the first fault in any section or between sections, that says how many more there are."""
    if found := faults(params, path):
        more = f" (and {len(found) - 1} more: python -m rlhf_lib.check)" if len(found) > 1 else ""
        raise ParamsError(found[0] + more)


def faults(params: Mapping[str, Any], path: Path = PARAMS_FILE) -> list[str]:
    """Every fault of the params as such, a line each; of files, dvc.yaml is read, and what lies where is looked up."""
    found = []
    for part in (check_policy, check_launch):
        try:
            part(params, path)
        except ParamsError as error:
            found.append(str(error))
    for name in params:
        if name not in ("policy", "launch", *SECTIONS):
            known = f"policy, launch, {', '.join(SECTIONS)}"
            found.append(f"{path}: {str(name)[:100]}: unknown section; known: {known}")
    examined = _examined(params, path)
    for section in examined.values():
        found += section if isinstance(section, list) else []
    valid = _valid(examined)
    try:
        graph = Graph.read(params)
    except ParamsError as error:
        found.append(str(error))
    else:
        found += [f"{path}: {name}: {told}" for name, told in circles.faults(valid, params, graph).items()]
    found += [f"{path}: {fault}" for fault in together.faults(valid)]
    return found + [f"{path}: ppo.{fault}" for fault in _unshared(valid, params.get("launch"))]


def _unshared(valid: Mapping[str, Any], launch: Any) -> Iterator[str]:
    """A minibatch that the processes cannot share, which stage ppo would tell after SFT and the reward model."""
    if "ppo" in valid and "methods" in valid and valid["methods"].ppo and isinstance(launch, str):
        try:
            valid["ppo"].trainer_config(processes(launch) or 1)
        except ValueError as error:
            yield str(error)


def valid_sections(params: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that hold, each as an instance of its class."""
    return _valid(_examined(params))


def _valid(examined: Mapping[str, Any]) -> dict[str, Any]:
    return {name: section for name, section in examined.items() if not isinstance(section, list)}


def _examined(params: Mapping[str, Any], path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Each section as an instance of its class, or as the list of its faults."""
    missing = "the section is missing; rlhf_lib/preset/demo.yaml has it"
    return {
        name: examine(section, params[name], name, path) if name in params else [f"{path}: {name}: {missing}"]
        for name, section in SECTIONS.items()
    }
