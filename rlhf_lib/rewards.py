"""Rewards of prompts and answers as text, each by the reward model's own tokenizer and template."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.chat import Message, dialogue_ids
from rlhf_lib.logprobs import by_length
from rlhf_lib.models import context_length, load_reward, load_tokenizer

STATISTICS_FILE = "reward_statistics.json"


class RewardModel:
    """A reward model as a function of texts.

    Rewards are raw scores less `mean`, in units of `std`: the spread of the answers that the reward stage measured,
    so that a KL coefficient means the same for every reward model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        mean: float = 0.0,
        std: float = 1.0,
        batch_size: int = 64,
    ) -> None:
        self.model, self.tokenizer = model.eval(), tokenizer
        self.mean, self.std = mean, std
        self.batch_size = batch_size

    @classmethod
    def load(cls, path: str | Path) -> RewardModel:
        """The reward model in a directory that the reward stage wrote."""
        statistics = json.loads((Path(path) / STATISTICS_FILE).read_text(encoding="utf-8"))
        return cls(load_reward(path), load_tokenizer(path), **statistics)

    def __call__(self, prompts: Sequence[list[Message]], completions: Sequence[str]) -> list[float]:
        """One normalised reward a row, in the given order."""
        return [(score - self.mean) / self.std for score in self.scores(prompts, completions)]

    @torch.no_grad()
    def scores(self, prompts: Sequence[list[Message]], completions: Sequence[str]) -> list[float]:
        """One raw score a row, in the given order. A dialogue longer than the model's context loses its beginning."""
        limit = context_length(self.model) or 0
        ids = [dialogue_ids(self.tokenizer, p, c)[-limit:] for p, c in zip(prompts, completions, strict=True)]
        scores = [0.0] * len(ids)
        for rows in by_length(map(len, ids), self.batch_size):
            batch = self.tokenizer.pad({"input_ids": [ids[i] for i in rows]}, padding_side="right", return_tensors="pt")
            logits = self.model(**batch.to(self.model.device)).logits.float().squeeze(-1)
            for i, score in zip(rows, logits.tolist(), strict=True):
                scores[i] = score
        return scores
