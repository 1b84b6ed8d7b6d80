"""The `best_of_n` section: the best of several answers of the SFT model, by the reward model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rlhf_lib.params.schema import AtLeast


@dataclass(frozen=True, kw_only=True)
class BestOfNParams:
    n: list[Annotated[int, AtLeast(2)]]
