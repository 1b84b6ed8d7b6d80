"""What reward models are trained on: pairs, or each prompt's answers with their scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from datasets import Dataset

from rlhf_lib.common.rows import read_jsonl
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.reward.params import REGRESSION
from rlhf_lib.training import trainer as training

COLUMNS = ("prompt", "chosen", "rejected")
GROUPS = ("ranking", *REGRESSION)  # the kinds that learn from all answers of a prompt


class Splits(NamedTuple):
    """Files to learn from: pairs, and each prompt's scored answers, without which there are no kinds that need them."""

    train: str
    validation: str
    groups_train: str | None = None
    groups_validation: str | None = None


def answer_groups(kind: str, splits: Splits) -> Iterator[Dataset]:
    """What `encode_groups` wants, of the training and of the validation rows."""
    if kind not in GROUPS:
        yield from (text_pairs(pairs(path, kind)) for path in (splits.train, splits.validation))
        return
    for path in (splits.groups_train, splits.groups_validation):
        if path is None:
            raise ValueError(f"{kind}: no groups to learn from")
        yield groups(path, kind)


def pairs(path: str, kind: str) -> Dataset:
    """The preference pairs in a file, with a `margin` if the kind is margin: the difference of their scores.

    The margin is in the units of the pair's source. Of an answer without a score, such as one that a model wrote, only
    the order is known: its margin is 0.
    """
    scores = ("score_chosen", "score_rejected")
    rows = training.dataset(path, (*COLUMNS, *(scores if kind == "margin" else ())))
    if not len(rows):
        raise _no_rows(path)
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
    if not rows:
        raise _no_rows(path)
    return Dataset.from_dict(
        {
            "prompt": [row["prompt"] for row in rows],
            "contents": [[response["content"] for response in row["responses"]] for row in rows],
            "values": [[response[value] for response in row["responses"]] for row in rows],
            "margin": [0.0] * len(rows),
        }
    )


def _no_rows(path: str) -> ParamsError:
    return ParamsError(f"{path}: no rows; load more, or change the shares of prepare in {PARAMS_FILE}")
