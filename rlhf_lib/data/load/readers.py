"""Every reader by its name."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from rlhf_lib.common.rows import Row, is_blank
from rlhf_lib.data.load import columns, dialogues, forums, ultrafeedback
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.load.reader import Hub, Parse, Reader, Rejected

SHORT = reprlib.Repr()  # of a record: its first fields, each cut, however deep and large they are
SHORT.maxlevel, SHORT.maxdict, SHORT.maxlist, SHORT.maxstring = 4, 8, 4, 100


def score_range(source: SourceParams) -> tuple[float, float] | None:
    """The scale of a source's scores, lowest and highest; None where it has none, or none that is known."""
    if source.reader == "ultrafeedback":
        return (1.0, 10.0) if source.score == "overall" else (1.0, 5.0)
    return READERS[source.reader].score_range


def _telling(parse: Parse, raw: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    """What `parse` gives, with an excerpt of the record where a rejection shows no text."""
    for item in parse(raw, source):
        if isinstance(item, Rejected) and is_blank(item.text):
            item = item._replace(text=SHORT.repr(raw))
        yield item


_ULTRAFEEDBACK = "texts source and instruction, and a list completions"
_TURNS = r"\n\nHuman: ...\n\nAssistant: ..."
_READERS = {
    "demo": Reader(ultrafeedback.parse, _ULTRAFEEDBACK, score_range=(1.0, 10.0)),
    "ultrafeedback": Reader(
        ultrafeedback.parse,
        _ULTRAFEEDBACK,
        Hub(
            "openbmb/UltraFeedback",
            "40b436560ca83a8dba36114c22ab3c66e43f6d5e",
            {"train": False},
            ("evol_instruct", "false_qa", "flan", "sharegpt", "truthful_qa", "ultrachat"),
            "{}.jsonl",
        ),
    ),
    "ultrafeedback_binarized": Reader(
        ultrafeedback.parse_binarized,
        "chosen, rejected, score_chosen and score_rejected, and a prompt where those are texts",
        Hub(
            "HuggingFaceH4/ultrafeedback_binarized",
            "3949bf5f8c17c394422ccfab0c31ea9c20bdeb85",
            {"train_prefs": False, "test_prefs": True},
        ),
        score_range=(1.0, 10.0),
    ),
    "ultrachat": Reader(
        dialogues.parse_ultrachat,
        "a list messages",
        Hub(
            "HuggingFaceH4/ultrachat_200k",
            "8049631c405ae6576f93f445c6b8166f76f5505a",
            {"train_sft": False, "test_sft": True},
        ),
        roles=("sft",),
    ),
    "hh": Reader(
        dialogues.parse_hh,
        f"texts chosen and rejected, {_TURNS}",
        Hub(
            "Anthropic/hh-rlhf",
            "09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa",
            {"train": False, "test": True},
            ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled"),
        ),
    ),
    "hh_prompts": Reader(
        dialogues.parse_hh_prompts,
        "a text user",
        Hub("wentingzhao/anthropic-hh-first-prompt", None, {"train": False}),
        roles=("prompts",),
    ),
    "shp": Reader(
        forums.parse_shp,
        "texts domain, history, human_ref_A and human_ref_B, and labels of 1 or 0",
        Hub(
            "stanfordnlp/SHP",
            "e94b5f32602712d78ed494fe79105b1959396686",
            {"train": False, "validation": True, "test": True},
        ),
        merges=True,
    ),
    "stack_exchange": Reader(
        forums.parse_stack_exchange,
        "a text question and a list answers",
        Hub(
            "HuggingFaceH4/stack-exchange-preferences",
            "c7bda74048748f55749cd663c3d8d1025a841fd9",
            {"train": False},
            subset_files="data/{}/*.parquet",
        ),
    ),
    "rm_static": Reader(
        dialogues.parse_rm_static,
        f"texts prompt, chosen and rejected, together {_TURNS}",
        Hub("Dahoas/rm-static", "64fd53cc91f7cb73b283a6e4f661205e277d23c9", {"train": False, "test": True}),
    ),
    "sft_static": Reader(
        dialogues.parse_sft_static,
        f"texts prompt and response, together {_TURNS}",
        Hub("Dahoas/sft-static", "90e35d9cd625075f1224c4241734716ec9f0db78", {"train": False}),
        roles=("sft",),
    ),
    "file": Reader(columns.parse, merges=True),
}
READERS = {name: replace(reader, parse=partial(_telling, reader.parse)) for name, reader in _READERS.items()}
