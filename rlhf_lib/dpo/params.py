"""The `dpo` section (TRL's DPOConfig), and `reference`: what the reference log-probs depend on, and so what a DPO sweep
must not change."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal, get_args

from rlhf_lib.common.schema import AtLeast, BatchSize, Below, Fraction, MaxLength, NotNegative, Positive
from rlhf_lib.training.params import TrainerParams

Loss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
SMOOTHED = ("robust", "exo_pair", "aot", "aot_unpaired")  # the losses that read label_smoothing
SORTED = ("aot", "aot_unpaired")  # that sort a batch, and so compare answers of several pairs
# that TRL 1.16 cannot weight: sorted ones lose their pairs, the others end in an error of autograd
UNWEIGHTED = ("hinge", "sft", *SORTED)
# that know only the difference of the two rewards (and sft, which knows none), as other divergences need it
OF_DIFFERENCE = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")


@dataclass(frozen=True, kw_only=True)
class DPOParams(TrainerParams):
    """The loss of the pairs, and how far it may move the policy."""

    metric_for_best_model: Literal["eval_loss", "eval_rewards/accuracies", "eval_rewards/margins"]
    beta: Positive
    loss_type: Loss | list[Loss]
    label_smoothing: Annotated[float, AtLeast(0), Below(0.5)]
    loss_weights: list[NotNegative] | None
    discopop_tau: Positive
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]
    f_alpha_divergence_coef: Fraction
    ld_alpha: Fraction | None
    use_weighting: bool

    # options of TRL's DPOTrainer that are none here, and why
    unserved = MappingProxyType(
        {
            **dict.fromkeys(
                ("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
                "stage reference computes the reference's log-probs once, so that it cannot follow the policy; take "
                "this out, and let the policy move further with a smaller dpo.beta",
            ),
            "precompute_ref_log_probs": "stage reference always does so; take this out",
            "precompute_ref_batch_size": "set reference.precompute_ref_batch_size",
            "max_length": "set reference.max_length, which holds for dpo too",
            "truncation_mode": "answers lose their end, as with keep_start; take this out",
            "padding_free": "no pass computes anything on padding; take this out",
            "rpo_alpha": "set dpo.loss_type to [sigmoid, sft], and dpo.loss_weights to [1.0, your rpo_alpha]",
        }
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_list()
        if self.label_smoothing and not self._named(SMOOTHED):
            raise ValueError(
                f"label_smoothing: must be 0.0 while dpo.loss_type is {self.shown}, which does not read it; "
                f"{', '.join(SMOOTHED)} do"
            )
        if "exo_pair" in self.losses and not self.label_smoothing:
            raise ValueError(
                "label_smoothing: must be above 0 while dpo.loss_type has exo_pair, which takes its logarithm; its "
                "authors set 0.001"
            )
        if self.f_divergence_type != "reverse_kl" and (others := set(self.losses) - set(OF_DIFFERENCE)):
            raise ValueError(
                f"f_divergence_type: must be reverse_kl while dpo.loss_type has {' and '.join(sorted(others))}; "
                f"{self.f_divergence_type} goes with {', '.join(OF_DIFFERENCE)}"
            )
        if self.use_weighting and (named := self._named(UNWEIGHTED)):
            raise ValueError(
                f"use_weighting: must be false while dpo.loss_type has {' and '.join(named)}, whose pairs TRL cannot "
                "weight"
            )
        if self.per_device_train_batch_size == 1 and (named := self._named(SORTED)):
            raise ValueError(
                f"per_device_train_batch_size: must be at least 2 while dpo.loss_type has {' and '.join(named)}, which "
                "compares the answers of several pairs"
            )

    @property
    def losses(self) -> list[Loss]:
        """What `loss_type` names, as a list."""
        return self.loss_type if isinstance(self.loss_type, list) else [self.loss_type]

    @property
    def shown(self) -> str:
        """`loss_type` as params.yaml has it."""
        return f"[{', '.join(self.loss_type)}]" if isinstance(self.loss_type, list) else self.loss_type

    def _named(self, kind: tuple[str, ...]) -> list[str]:
        return [loss for loss in self.losses if loss in kind]

    def _check_list(self) -> None:
        """`loss_type` as a list, and its weights."""
        if not self.losses:
            raise ValueError(f"loss_type: must name a loss: {', '.join(get_args(Loss))}")
        for loss in self.losses:
            if self.losses.count(loss) > 1:
                raise ValueError(f"loss_type: names {loss} more than once; give it a weight in dpo.loss_weights")
        if self.loss_weights is None:
            return
        if len(self.loss_weights) != len(self.losses):
            raise ValueError(
                f"loss_weights: must have a weight for each loss of dpo.loss_type, which is {self.shown}, got "
                f"{self.loss_weights}"
            )
        if not any(self.loss_weights):
            raise ValueError(f"loss_weights: must not all be 0, got {self.loss_weights}")


@dataclass(frozen=True, kw_only=True)
class ReferenceParams:
    """What the reference log-probs depend on, beside the SFT model, and the bits of weights in `dpo`; the name of the
    batch size is that of TRL's DPOConfig."""

    max_length: MaxLength
    precompute_ref_batch_size: BatchSize
