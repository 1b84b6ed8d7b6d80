"""The `dpo` section: direct preference optimisation (TRL's DPOConfig)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rlhf_lib.params.schema import Above
from rlhf_lib.params.training import Fraction, TrainerParams


@dataclass(frozen=True, kw_only=True)
class DPOParams(TrainerParams):
    beta: Annotated[float, Above(0)]
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust", "apo_zero", "apo_down", "sigmoid_norm"]
    label_smoothing: Fraction
