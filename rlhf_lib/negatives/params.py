"""The `negatives` section: answers of a model that become rejected ones."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lib.common import paths
from rlhf_lib.common.schema import Copies
from rlhf_lib.generation.params import SampledParams
from rlhf_lib.scoring import source as reward_source

MODELS = (paths.SFT, paths.BASE)  # the deps of the stage


@dataclass(frozen=True, kw_only=True)
class NegativesParams(SampledParams):
    """Whose answers are sampled, and how."""

    model_name_or_path: str | None
    num_negatives: Copies

    def __post_init__(self) -> None:
        model = self.model_name_or_path
        if model is None or model in MODELS:
            return
        try:
            kind = reward_source.parse(model).kind
        except ValueError:
            kind = None  # what it says is about rewards
        if kind not in ("hub", "directory"):
            raise ValueError(
                "model_name_or_path: not the name of a model; set it to models/sft, models/base, a directory (./...) "
                f"or a hub model at its commit (owner/name@<40 hex digits>), got {model!r}"
            )

    @property
    def name_and_revision(self) -> tuple[str, str | None]:
        """The model's directory and None, or its hub id and commit."""
        source = reward_source.parse(self.model_name_or_path or paths.SFT)
        return source.location, source.revision
