"""Preference pairs as token ids: one encoding for the reference log-probs and for DPO's trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from rlhf_lib.models.chat import pair_and_start
from rlhf_lib.models.templates import of_row


class Pair(NamedTuple):
    """The tokens of a prompt, with which both dialogues begin, and of both answers."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]

    def tokens(self) -> int:
        """Of the longer dialogue."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


def encode(tokenizer: PreTrainedTokenizerBase, pair: Mapping[str, Any], file: str, number: int) -> Pair:
    """Row `number`, from 1, of a file of pairs, which has `prompt`, `chosen` and `rejected` (messages).

    A `ParamsError` names the row that the chat template refuses.
    """
    with of_row(file, number):
        answers = (pair["chosen"][0]["content"], pair["rejected"][0]["content"])
        dialogues, start = pair_and_start(tokenizer, pair["prompt"], answers)
    return Pair(dialogues[0][:start], *(dialogue[start:] for dialogue in dialogues))
