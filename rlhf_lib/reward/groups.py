"""A trainer of reward models on the answers of a prompt together: K-way ranking, regression, and pairs of texts.

TRL's RewardTrainer knows pairs of dialogues alone. Here a row of the training data is a prompt with all its answers,
encoded as `RewardModel` encodes them, and a batch is `per_device_train_batch_size` such rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from transformers import TrainerControl
from trl import RewardConfig

from rlhf_lib.common.rows import JsonObject
from rlhf_lib.models.lengths import Lengths, Limit
from rlhf_lib.models.logprobs import by_length
from rlhf_lib.models.templates import of_row
from rlhf_lib.reward.losses import count_right, ranking_loss, regression_loss
from rlhf_lib.reward.params import REGRESSION
from rlhf_lib.scoring.reward_model import Encoded, RewardModel, encode, has_segments, padded, raw_scores
from rlhf_lib.training import trainer as training


class GroupsTrainer(training.Unpadded):
    """Learns from rows as `encode_groups` makes them.

    Beside the loss, the share of rightly ordered pairs is logged.
    """

    loss_is_scaled_for_ga = False
    summed = ("_right", "_pairs")

    def __init__(
        self,
        scorer: RewardModel,
        kind: str,
        args: RewardConfig,
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
    ) -> None:
        super().__init__(
            model=scorer.model,
            args=args,
            data_collator=self._collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=scorer.tokenizer,
        )
        self.scorer, self.kind = scorer, kind
        self._right, self._pairs = 0.0, 0  # since the last log

    def _collate(self, rows: Sequence[JsonObject]) -> dict[str, Tensor]:
        """The model's inputs of the N answers of the rows, and `values` (N,), `groups` (N,) and `margins` (rows,)."""
        answers = [Encoded(*answer) for row in rows for answer in zip(row["input_ids"], row["type_ids"], strict=True)]
        sizes = torch.tensor([len(row["values"]) for row in rows])
        return {
            **padded(answers, self.scorer.pad_id or 0),
            "values": torch.tensor([value for row in rows for value in row["values"]]),
            "groups": torch.arange(len(rows)).repeat_interleave(sizes),
            "margins": torch.tensor([row["margin"] for row in rows]),
        }

    def _loss(self, model: Any, inputs: dict[str, Tensor]) -> tuple[Tensor, float, int]:
        """The loss of a batch, and what `count_right` says of it."""
        values, groups, margins = (inputs.pop(key) for key in ("values", "groups", "margins"))
        rewards = raw_scores(model, inputs, self.scorer.bounds)
        if self.kind in REGRESSION:
            loss = regression_loss(rewards, values, groups, self.kind)
        else:
            loss = ranking_loss(rewards, values, groups, margins, self.args.center_rewards_coefficient)
        return loss, *count_right(rewards.detach(), values, groups)

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        loss, right, pairs = self._loss(model, inputs)
        self._right, self._pairs = self._right + right, self._pairs + pairs
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            right, pairs = map(sum, zip(*gather_object([(self._right, self._pairs)]), strict=True))
            if pairs:
                logs["accuracy"] = right / pairs
            self._right, self._pairs = 0.0, 0
        super().log(logs, start_time)

    @torch.no_grad()
    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> dict[str, float]:
        """Loss and accuracy on all validation rows; of several processes each measures its own batches."""
        self.model.eval()
        batches = list(by_length(self.eval_dataset["length"], self.args.per_device_eval_batch_size))
        found: list[tuple[int, float, float, int]] = []
        for first in range(0, len(batches), self.accelerator.num_processes):
            place = first + self.accelerator.process_index
            # where none is left for this process, one that does not count: sharded weights need every process
            rows = batches[place if place < len(batches) else first]
            inputs = self._prepare_inputs(self._collate([self.eval_dataset[row] for row in rows]))
            of_batch, *counted = self._loss(self.model, inputs)
            if place < len(batches):
                found.append((place, of_batch.item() * len(rows), *counted))
        # in the order of the batches, so that sums are those of one process
        _, losses, right, pairs = map(sum, zip(*sorted(gather_object(found)), strict=True))
        metrics = {
            f"{metric_key_prefix}_loss": losses / len(self.eval_dataset),
            f"{metric_key_prefix}_accuracy": right / pairs if pairs else math.nan,
        }
        self.log(metrics)
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def encode_groups(rows: Dataset, kind: str, scorer: RewardModel, limit: Limit, path: str) -> tuple[Dataset, Lengths]:
    """Rows with `prompt`, `contents` (its answers), `values` (their scores or targets) and `margin`, encoded; and what
    was too long.

    Answers whose dialogue is longer than the limit are dropped, and then the prompts that are left without two
    different values; a regression (`mse`, `mae`) learns from a single answer too.
    """
    tokenizer, segments = scorer.tokenizer, has_segments(scorer.model)
    most = None if tokenizer.chat_template else limit.tokens + 1  # a longer pair of texts is cut to that
    least = 1 if kind in REGRESSION else 2

    def encode_group(row: JsonObject, number: int) -> JsonObject:
        with of_row(path, number + 1):
            answers = [encode(tokenizer, row["prompt"], content, most, segments) for content in row["contents"]]
        kept = [i for i, answer in enumerate(answers) if len(answer.ids) <= limit.tokens]
        values = [float(row["values"][i]) for i in kept]
        return {
            "input_ids": [answers[i].ids for i in kept],
            "type_ids": [answers[i].type_ids for i in kept],
            "values": values,
            "margin": float(row["margin"]),
            "length": max((len(answers[i].ids) for i in kept), default=0),
            "tokens": max((len(answer.ids) for answer in answers), default=0),
            "kept": len(set(values)) >= least,
            "compares": len(set(row["values"])) >= least,
        }

    found = rows.map(encode_group, with_indices=True, remove_columns=rows.column_names, desc="Encoding")
    counted = zip(found["tokens"], found["kept"], found["compares"], strict=True)
    lengths = Lengths.of(path, limit, ((tokens, kept) for tokens, kept, compares in counted if compares))
    kept = [place for place, is_kept in enumerate(found["kept"]) if is_kept]
    return found.select(kept).remove_columns(["tokens", "kept", "compares"]), lengths
