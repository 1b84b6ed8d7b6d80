"""Answers that are good or bad as token ids, in the batches in which KTO estimates the KL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from rlhf_lib.common import paths
from rlhf_lib.models.chat import dialogue_and_start
from rlhf_lib.models.lengths import Lengths, Limit
from rlhf_lib.models.seeds import seeded
from rlhf_lib.models.templates import check_rows, of_row
from rlhf_lib.training.trainer import EpochOrder

COLUMNS = ("id", "prompt", "completion", "label")  # TRL's names of an unpaired preference
FILES = {part: paths.split(f"thumbs_{part}") for part in ("train", "validation")}


class Thumb(NamedTuple):
    """The tokens of a prompt and its answer, within the length, and whether the answer is good."""

    prompt: list[int]
    completion: list[int]
    label: bool


def encoded(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, max_length: int, part: str
) -> list[Thumb]:
    """The rows of part train or validation, answers cut where the dialogue reaches `max_length` tokens.

    Rows whose prompt alone fills it are left out, as in TRL. A `ParamsError` where the chat template refuses a row, or
    nothing is left to learn from.
    """
    file = FILES[part]
    check_rows(tokenizer, (row["prompt"] for row in rows), file)
    found, lengths = [], []
    for number, row in enumerate(rows, start=1):
        with of_row(file, number):
            dialogue, start = dialogue_and_start(tokenizer, row["prompt"], row["completion"][0]["content"])
        lengths.append((len(dialogue), start < max_length))
        if start < max_length:
            found.append(Thumb(dialogue[:start], dialogue[start:max_length], bool(row["label"])))
    counted = Lengths.of(file, Limit("kto.max_length", max_length), lengths)
    if part == "train":
        counted.check_train()
    else:
        counted.check_validation()
    return found


def in_batches(thumbs: Sequence[Thumb], batch_size: int, grouped: bool, seed: int) -> list[Thumb]:
    """Training rows in the order of their batches, drawn once: those of similar length together where `grouped`."""
    lengths = [len(thumb.prompt) + len(thumb.completion) for thumb in thumbs]
    return [thumbs[row] for row in EpochOrder(lengths, batch_size, grouped, seed)]


def evenly(thumbs: Sequence[Thumb]) -> list[Thumb]:
    """Validation rows with good and bad ones spread evenly: TRL averages over batches, which should be alike.

    Both kinds are shuffled, always alike: a file has a prompt's answers side by side, and neighbours in a batch, by
    which the KL is estimated, are to be of different prompts.
    """
    places: list[tuple[float, int]] = []
    for label in (True, False):
        rows = [row for row, thumb in enumerate(thumbs) if thumb.label is label]
        order = torch.randperm(len(rows), generator=seeded("validation", int(label))).tolist()
        places += [((rank + 0.5) / len(rows), rows[place]) for rank, place in enumerate(order)]
    return [thumbs[row] for _, row in sorted(places)]


def mismatched(thumbs: Sequence[Thumb], batch_size: int) -> Iterator[list[int]]:
    """For each row the answer to another prompt, by which the KL is estimated: in each batch they are rotated by one,
    as in TRL, so that its rewards and its KL are of the same answers.

    A row that is alone in the last batch gets that of the row before it: with its own, the KL would be its reward.
    """
    for row in range(len(thumbs)):
        start = row - row % batch_size
        end = min(start + batch_size, len(thumbs))
        yield thumbs[row - 1 if row > start or end - start == 1 else end - 1].completion


class BatchOrder(EpochOrder):
    """The batches, whose rows stay together, in a new order in each pass; a short one stays last."""

    def __iter__(self) -> Iterator[int]:
        whole = len(self) // self.batch_size
        order = torch.randperm(whole, generator=seeded("order", self.seed, self.epoch)).tolist()
        rows = [batch * self.batch_size + row for batch in order for row in range(self.batch_size)]
        return iter([*rows, *range(whole * self.batch_size, len(self))])
