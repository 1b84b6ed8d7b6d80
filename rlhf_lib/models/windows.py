"""Whether a model's layers hand on to attention the sliding windows that their masks have.

A row must be longer than a window for it to show in logits. Here a short one will do: of each mask that transformers
makes it is written down for which window, and of each call of attention with which mask and which window it comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from rlhf_lib.models.attention import attention

WATCHED = "packed_and_watched"  # the attention of `attention.py`, of rows that are padded, while it is watched


class Windows:
    """Of each mask that a model makes, the sliding window; and what is wrong with what its layers hand on."""

    def __init__(self) -> None:
        self.of_masks: dict[int, int | None] = {}
        self.masks: list[Tensor] = []  # kept, or another would come to lie where one was
        self.told: str | None = None

    def made(self, mask: Tensor, window: int | None) -> None:
        self.masks.append(mask)
        self.of_masks[mask.untyped_storage().data_ptr()] = window

    def handed_on(self, mask: Tensor | None, window: int | None) -> None:
        place = None if mask is None else mask.untyped_storage().data_ptr()
        if place not in self.of_masks:
            self.told = "its layers attend by masks of their own"
        elif self.of_masks[place] != window:
            self.told = f"a layer's mask has a window of {self.of_masks[place]} tokens, its attention {window}"


_windows: Windows | None = None


@contextmanager
def watched() -> Iterator[Windows]:
    """A context in which what a model that attends as `WATCHED` does is written down."""
    global _windows
    _windows = Windows()
    try:
        yield _windows
    finally:
        _windows = None


def _watched_mask(*args: Any, local_size: int | None = None, **kwargs: Any) -> Tensor:
    mask = eager_mask(*args, local_size=local_size, **kwargs)
    assert _windows is not None
    _windows.made(mask, local_size)
    return mask


def _watched_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    assert _windows is not None
    _windows.handed_on(attention_mask, kwargs.get("sliding_window"))
    return attention(module, query, key, value, attention_mask, **kwargs)


AttentionInterface.register(WATCHED, _watched_attention)
AttentionMaskInterface.register(WATCHED, _watched_mask)
