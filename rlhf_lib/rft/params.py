"""The section `rft`: how many candidates the best is chosen from, and the fine-tuning (TRL's SFTConfig)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlhf_lib.common.schema import Several
from rlhf_lib.sft.params import SFTParams


@dataclass(frozen=True, kw_only=True)
class RFTParams(SFTParams):
    """Fine-tuning on the best of the first `n` candidates."""

    n: Several

    def config(self) -> dict[str, Any]:
        return {key: value for key, value in super().config().items() if key != "n"}
