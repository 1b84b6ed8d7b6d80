"""True quality, for the sources that have a rule for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rlhf_lib.common.rows import Message
from rlhf_lib.demo import gold as demo


def known(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether every row's source has a scorer."""
    return all(row["source"].startswith("demo/") for row in rows)


def gold(prompts: Sequence[list[Message]], completions: Sequence[str]) -> list[float]:
    """The true quality in [0, 1] of each completion, in the given order."""
    return [demo.gold(p[-1]["content"], c) for p, c in zip(prompts, completions, strict=True)]


def answer_format(prompt: list[Message]) -> str:
    """The form of answer that the prompt asks for, by which quality is broken down."""
    return demo.answer_format(prompt[-1]["content"])
