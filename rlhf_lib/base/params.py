"""The `base` section: the model and tokenizer that everything starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rlhf_lib.common.schema import AtLeast, AtMost, NewTokens, Seed

Width = Annotated[int, AtLeast(1), AtMost(65_536)]
LARGEST = 10**11  # weights of a fresh model


@dataclass(frozen=True)
class BaseParams:
    """A model of the hub or a directory, or the sizes of a fresh one."""

    model_name_or_path: str | None
    model_revision: str | None
    seed: Seed
    vocab_size: Annotated[int, AtLeast(300), AtMost(10_000_000)]
    n_positions: NewTokens
    n_embd: Width
    n_layer: Width
    n_head: Width

    def __post_init__(self) -> None:
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head: must divide n_embd ({self.n_embd}), got {self.n_head}")
        if self.model_name_or_path is None and self.weights > LARGEST:
            raise ValueError(
                f"n_embd: the fresh model would have {self.weights:.1e} weights; make it or its layers fewer"
            )

    @property
    def weights(self) -> int:
        """Of the fresh model, about: those of the biases and norms are left out."""
        return 12 * self.n_layer * self.n_embd**2 + (self.vocab_size + self.n_positions) * self.n_embd
