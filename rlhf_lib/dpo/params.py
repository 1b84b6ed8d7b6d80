"""The `dpo` section (TRL's DPOConfig), and `reference`: what the reference log-probs depend on, and so what a DPO sweep
must not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rlhf_lib.common.schema import Above, BatchSize, Fraction, MaxLength
from rlhf_lib.training.params import TrainerParams


@dataclass(frozen=True, kw_only=True)
class DPOParams(TrainerParams):
    """The loss of the pairs, and how far it may move the policy."""

    beta: Annotated[float, Above(0)]
    loss_type: Literal["sigmoid", "hinge", "ipo", "robust", "apo_zero", "apo_down", "sigmoid_norm"]
    label_smoothing: Fraction

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss_type == "robust" and self.label_smoothing >= 0.5:
            raise ValueError(
                "label_smoothing: must be below 0.5 while dpo.loss_type is robust, which divides by "
                f"1 - 2 label_smoothing, got {self.label_smoothing}"
            )


@dataclass(frozen=True, kw_only=True)
class ReferenceParams:
    """What the reference log-probs depend on, beside the SFT model, and the bits of weights in `dpo`; the name of the
    batch size is that of TRL's DPOConfig."""

    max_length: MaxLength
    precompute_ref_batch_size: BatchSize
