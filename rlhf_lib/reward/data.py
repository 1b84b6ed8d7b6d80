"""What reward models are trained on: pairs, or each prompt's answers with their scores."""

from __future__ import annotations

from typing import Literal, NamedTuple

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from rlhf_lib.common.rows import JsonObject, read_jsonl
from rlhf_lib.models.chat import dialogue_ids
from rlhf_lib.models.lengths import Lengths, Limit
from rlhf_lib.models.templates import check_rows, of_row
from rlhf_lib.reward.groups import encode_groups
from rlhf_lib.reward.params import GROUPS, REGRESSION, JudgeParams
from rlhf_lib.scoring.reward_model import RewardModel
from rlhf_lib.training import trainer as training

COLUMNS = ("prompt", "chosen", "rejected")


class Splits(NamedTuple):
    """Files to learn from: pairs, and each prompt's scored answers, without which there are no kinds that need them."""

    train: str
    validation: str
    groups_train: str | None = None
    groups_validation: str | None = None


def encoded(
    section: str, params: JudgeParams, scorer: RewardModel, splits: Splits, part: Literal["train", "validation"]
) -> tuple[Dataset, Lengths]:
    """What the trainer of params section `section` reads of a part of the data, and what was too long.

    Pairs of dialogues for TRL's trainer; for `GroupsTrainer` groups, and pairs of texts for an encoder. A `ParamsError`
    names the row that the chat template refuses.
    """
    is_train, limit = part == "train", Limit(f"{section}.max_length", params.max_length)
    if params.kind in GROUPS:
        path = splits.groups_train if is_train else splits.groups_validation
        if path is None:
            raise ValueError(f"{params.kind}: no groups to learn from")
        rows = groups(path, params.kind)
    else:
        path = splits.train if is_train else splits.validation
        rows = pairs(path, params.kind)
    if not len(rows):
        return rows, Lengths.of(path, limit, [])
    check_rows(scorer.tokenizer, rows["prompt"], path)
    if params.kind in GROUPS:
        return encode_groups(rows, params.kind, scorer, limit, path)
    if scorer.tokenizer.chat_template is None:
        return encode_groups(text_pairs(rows), params.kind, scorer, limit, path)
    return encode_pairs(rows, scorer.tokenizer, limit, path)


def encode_pairs(rows: Dataset, tokenizer: PreTrainedTokenizerBase, limit: Limit, path: str) -> tuple[Dataset, Lengths]:
    """Pairs as the token ids that TRL's trainer reads, without those of which a dialogue is longer than the limit."""

    def encode_pair(row: JsonObject, number: int) -> JsonObject:
        answers = (row[side][0]["content"] for side in ("chosen", "rejected"))
        with of_row(path, number + 1):
            chosen, rejected = (dialogue_ids(tokenizer, row["prompt"], answer) for answer in answers)
        return {"chosen_ids": chosen, "rejected_ids": rejected, "tokens": max(len(chosen), len(rejected))}

    found = rows.map(encode_pair, with_indices=True, remove_columns=list(COLUMNS), desc="Encoding")
    tokens = found["tokens"]
    kept = [place for place, count in enumerate(tokens) if count <= limit.tokens]
    lengths = Lengths.of(path, limit, ((count, count <= limit.tokens) for count in tokens))
    return found.select(kept).remove_columns("tokens"), lengths


def pairs(path: str, kind: str) -> Dataset:
    """The preference pairs in a file, with a `margin` if the kind is margin: the difference of their scores.

    The margin is in the units of the pair's source. Of an answer without a score, such as one that a model wrote, only
    the order is known: its margin is 0.
    """
    scores = ("score_chosen", "score_rejected")
    rows = training.dataset(path, (*COLUMNS, *(scores if kind == "margin" else ())))
    if kind != "margin":
        return rows
    both = zip(*(rows[key] for key in scores), strict=True)
    margins = [0.0 if None in (chosen, rejected) else float(chosen - rejected) for chosen, rejected in both]
    return rows.remove_columns(list(scores)).add_column("margin", margins)


def text_pairs(rows: Dataset) -> Dataset:
    """Pairs as groups of two answers, the chosen one first."""
    return Dataset.from_dict(
        {
            "prompt": rows["prompt"],
            "contents": [[row[key][0]["content"] for key in ("chosen", "rejected")] for row in rows],
            "values": [[1.0, 0.0]] * len(rows),
            "margin": rows["margin"] if "margin" in rows.column_names else [0.0] * len(rows),
        }
    )


def groups(path: str, kind: str) -> Dataset:
    """The prompts in a file with all their answers and their scores, or their targets if the kind is a regression."""
    rows, value = read_jsonl(path), "target" if kind in REGRESSION else "score"
    return Dataset.from_dict(
        {
            "prompt": [row["prompt"] for row in rows],
            "contents": [[response["content"] for response in row["responses"]] for row in rows],
            "values": [[response[value] for response in row["responses"]] for row in rows],
            "margin": [0.0] * len(rows),
        }
    )
