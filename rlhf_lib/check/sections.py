"""Check every section of params.yaml at once: `python -m rlhf_lib.check`.

A stage checks its own section when it runs; this says what is wrong before the first stage does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf_lib.base.params import BaseParams
from rlhf_lib.common.schema import PARAMS_FILE, check, check_launch, check_policy
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.data.load.params import LoadParams
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.dpo.params import DPOParams, ReferenceParams
from rlhf_lib.evaluation.params import BestOfNParams, EvaluateParams
from rlhf_lib.llm_judge.params import LLMJudgeParams
from rlhf_lib.models.params import ComputeParams
from rlhf_lib.negatives.params import NegativesParams
from rlhf_lib.ppo.params import PPOParams
from rlhf_lib.report.params import ReportParams
from rlhf_lib.reward.params import JudgeParams, RewardParams
from rlhf_lib.sft.params import SFTParams

SECTIONS: dict[str, type] = {
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
    "evaluate": EvaluateParams,
    "best_of_n": BestOfNParams,
    "llm_judge": LLMJudgeParams,
    "report": ReportParams,
}


def check_all(params: Mapping[str, Any], path: Path = PARAMS_FILE) -> None:
    """A `ParamsError` for the first fault in any section."""
    check_policy(params, path)
    check_launch(params, path)
    for name in params:
        if name not in ("policy", "launch", *SECTIONS):
            raise ParamsError(f"{path}: {name}: unknown section; known: policy, launch, {', '.join(SECTIONS)}")
    for name, section in SECTIONS.items():
        if name not in params:
            raise ParamsError(f"{path}: {name}: the section is missing; put it back (git checkout {path})")
        check(section, params[name], name, path)


if __name__ == "__main__":
    check_all(load_yaml(PARAMS_FILE))
