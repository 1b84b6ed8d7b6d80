"""The `reward` and `judge` sections: two reward models, one to learn from and one to judge by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rlhf_lib.common.schema import MaxLength, Positive
from rlhf_lib.scoring.source import RewardSource, parse
from rlhf_lib.training.params import TrainerParams

LossType = Literal["bradley_terry", "margin", "ranking", "mse", "mae"]
REGRESSION = ("mse", "mae")
GROUPS = ("ranking", *REGRESSION)  # the kinds that learn from all answers of a prompt
_OURS = ("model_name_or_path", "loss_type", "bounded")  # the fields that TRL's RewardConfig does not have


@dataclass(frozen=True, kw_only=True)
class JudgeParams(TrainerParams):
    """A Bradley-Terry model of pairs."""

    model_name_or_path: str
    max_length: MaxLength
    center_rewards_coefficient: Positive | None
    metric_for_best_model: Literal["eval_loss", "eval_accuracy"]

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            is_model = parse(self.model_name_or_path).kind != "function"
        except ValueError:
            is_model = False  # what it says is about reward_funcs
        if not is_model:
            raise ValueError(
                "model_name_or_path: not the name of a model; set it to models/sft, models/base, a directory (./...) "
                f"or a hub model at its commit (owner/name@<40 hex digits>), got {self.model_name_or_path!r}"
            )

    @property
    def source(self) -> RewardSource:
        """The directory, or the hub id and commit, of the model that the reward model starts from."""
        return parse(self.model_name_or_path)

    @property
    def kind(self) -> LossType:
        return "bradley_terry"

    @property
    def is_bounded(self) -> bool:
        return False

    def config(self) -> dict[str, Any]:
        return {key: value for key, value in super().config().items() if key not in _OURS}


@dataclass(frozen=True, kw_only=True)
class RewardParams(JudgeParams):
    """Any kind of reward model."""

    loss_type: LossType
    bounded: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        regression = self.loss_type in REGRESSION
        if self.bounded and not regression:
            raise ValueError(
                f"bounded: must be false while reward.loss_type is {self.loss_type}; it is for mse and mae"
            )
        if self.center_rewards_coefficient is not None and regression:
            raise ValueError(
                f"center_rewards_coefficient: must be null while reward.loss_type is {self.loss_type}, whose targets "
                "say where the rewards lie"
            )

    @property
    def kind(self) -> LossType:
        return self.loss_type

    @property
    def is_bounded(self) -> bool:
        return self.bounded
