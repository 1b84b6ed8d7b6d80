"""The `base` section: the model and tokenizer that everything starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rlhf_lib.common.schema import AtLeast, Count


@dataclass(frozen=True)
class BaseParams:
    """A model of the hub or a directory, or the sizes of a fresh one."""

    model_name_or_path: str | None
    model_revision: str | None
    seed: int
    vocab_size: Annotated[int, AtLeast(300)]
    n_positions: Count
    n_embd: Count
    n_layer: Count
    n_head: Count

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head: must divide n_embd ({self.n_embd}), got {self.n_head}")
