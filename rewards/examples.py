"""Reward functions to use as they are, or to start from. docs/rewards.md has the contract."""

from __future__ import annotations

from typing import Any

from rlhf_lib.demo.gold import gold

Messages = list[dict[str, str]]

WORD_LIMIT = 40


def brevity(completions: list[Messages], **columns: Any) -> list[float]:
    """Minus the number of words over `WORD_LIMIT`; 0 up to there."""
    return [float(min(0, WORD_LIMIT - len(completion[0]["content"].split()))) for completion in completions]


def no_repetition(completions: list[Messages], **columns: Any) -> list[float]:
    """Minus the share of three-word sequences that were there before, in [-1, 0]; 0 below three words."""
    return [_new_share(completion[0]["content"].lower().split()) - 1 for completion in completions]


def _new_share(words: list[str]) -> float:
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(trigrams)) / len(trigrams) if trigrams else 1.0


def demo_gold(
    prompts: list[Messages], completions: list[Messages], source: list[str], **columns: Any
) -> list[float | None]:
    """The true quality in [0, 1] of answers to the embedded demo; None for rows of other sources.

    A monitor: with weight 0 it shows beside the reward whether the policy games the reward model.
    """
    return [
        gold(prompt[-1]["content"], completion[0]["content"]) if name.startswith("demo/") else None
        for prompt, completion, name in zip(prompts, completions, source, strict=True)
    ]
