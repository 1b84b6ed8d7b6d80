"""SFT rows as token ids: what TRL's trainer would make of them, with the answer's place found as everywhere here."""

from __future__ import annotations

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from rlhf_lib.common.rows import JsonObject
from rlhf_lib.models.chat import dialogue_and_start
from rlhf_lib.models.lengths import Lengths, Limit
from rlhf_lib.models.templates import check_rows, of_row

IGNORED = -100  # the label of a token that is not learnt


def encode(
    rows: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, file: str, section: str = "sft"
) -> tuple[Dataset, Lengths]:
    """Rows with `prompt` and `completion` as `input_ids` and `labels`, cut at `max_length` tokens; and what was lost.

    Rows whose prompt alone fills `max_length` are dropped. `length`, in characters, stays. A `ParamsError` names the
    row of `file` that the chat template refuses. section: the one of params.yaml that has `max_length`.
    """
    limit = Limit(f"{section}.max_length", max_length)
    if not len(rows):
        return rows, Lengths.of(file, limit, [])
    check_rows(tokenizer, rows["prompt"], file)

    def encoded(row: JsonObject, number: int) -> JsonObject:
        with of_row(file, number + 1):
            dialogue, start = dialogue_and_start(tokenizer, row["prompt"], row["completion"][0]["content"])
        labels = [IGNORED] * start + dialogue[start:]
        return {
            "input_ids": dialogue[:max_length],
            "labels": labels[:max_length],
            "tokens": len(dialogue),
            "kept": start < min(len(dialogue), max_length),
        }

    unread = ["prompt", "completion"]
    found = rows.map(encoded, with_indices=True, remove_columns=unread, desc="Encoding")
    lengths = Lengths.of(file, limit, zip(found["tokens"], found["kept"], strict=True))
    kept = [place for place, is_kept in enumerate(found["kept"]) if is_kept]
    return found.select(kept).remove_columns(["tokens", "kept"]), lengths
