"""Readers: every source as rows of the one row type, and what was rejected on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rlhf_lib.demo import build_rows
from rlhf_lib.params.load import LoadParams
from rlhf_lib.params.schema import PARAMS_FILE, ParamsError
from rlhf_lib.rows import Message, Response, Row, as_score, is_blank, is_messages, is_text, make_row, read_values

HUB = {
    "ultrafeedback": ("openbmb/UltraFeedback", "train"),
    "ultrafeedback_binarized": ("HuggingFaceH4/ultrafeedback_binarized", "train_prefs"),
}


@dataclass(frozen=True)
class Rejected:
    """A row, or one completion of a row (`completion_...`), that is not used, and why."""

    reason: str
    source: str


def read_rows(params: LoadParams) -> Iterator[Row | Rejected]:
    """Rows and rejections of the first `max_rows` records of the source; a faulty record is never an exception.

    Raises `SystemExit` of one line where the source as a whole cannot be read.
    """
    parse = PARSERS[params.source]
    for raw in islice(_raw_records(params), params.max_rows):
        yield from parse(raw)


def parse_ultrafeedback(raw: Any, prefix: str = "ultrafeedback") -> Iterator[Row | Rejected]:
    """One record of openbmb/UltraFeedback's schema; the score is the overall score (1 to 10)."""
    fields = raw if isinstance(raw, dict) else {}
    name, instruction, completions = (fields.get(key) for key in ("source", "instruction", "completions"))
    named = is_text(name) and bool(name)
    source = f"{prefix}/{name}" if named else f"{prefix}/unknown"
    if not (named and is_text(instruction) and isinstance(completions, list)):
        yield Rejected("malformed", source)
        return
    if is_blank(instruction):
        yield Rejected("empty_prompt", source)
        return
    responses: list[Response] = []
    for completion in completions:
        if fault := _completion_fault(completion):
            yield Rejected(fault, source)
        else:
            responses.append({"content": completion["response"], "score": float(completion["overall_score"])})
    yield _row_or_rejected(source, [{"role": "user", "content": instruction}], responses)


def parse_binarized(raw: Any, source: str = "ultrafeedback_binarized") -> Iterator[Row | Rejected]:
    """One record {prompt, chosen, rejected, score_chosen, score_rejected}; the answers are texts or message lists."""
    prompt = _binarized_prompt(raw)
    if prompt is None or "score_chosen" not in raw or "score_rejected" not in raw:
        yield Rejected("malformed", source)
        return
    if is_blank(prompt[-1]["content"]):
        yield Rejected("empty_prompt", source)
        return
    responses: list[Response] = []
    for side in ("chosen", "rejected"):
        text, score = _answer(raw[side]), as_score(raw[f"score_{side}"])
        if fault := _response_fault(text, score):
            yield Rejected(fault, source)
        elif text is not None and score is not None:
            responses.append({"content": text, "score": score})
    yield _row_or_rejected(source, prompt, responses)


def _row_or_rejected(source: str, prompt: list[Message], responses: list[Response]) -> Row | Rejected:
    return make_row(source, prompt, responses) if responses else Rejected("no_usable_completion", source)


def _completion_fault(completion: Any) -> str | None:
    """Why a completion of UltraFeedback is not used, or None."""
    if not (isinstance(completion, dict) and is_text(completion.get("response")) and "overall_score" in completion):
        return "completion_malformed"
    score, fine = as_score(completion["overall_score"]), as_score(completion.get("fine-grained_score"))
    if fault := _response_fault(completion["response"], score):
        return fault
    if score is not None and score >= 10 and fine is not None and fine <= 2:
        return "completion_wrong_score"  # upstream wrote 10 for some answers it had scored 1
    return None


def _response_fault(text: str | None, score: float | None) -> str | None:
    if text is None or is_blank(text):
        return "completion_empty"
    return "completion_no_score" if score is None else None


def _binarized_prompt(raw: Any) -> list[Message] | None:
    """The prompt of a binarized record; None where the record is malformed."""
    if not isinstance(raw, dict) or any(_answer(raw.get(side)) is None for side in ("chosen", "rejected")):
        return None
    if "prompt" in raw:
        return [{"role": "user", "content": raw["prompt"]}] if is_text(raw["prompt"]) else None
    before = _before_answer(raw["chosen"])
    # answers to different dialogues are not a comparison
    return before if before and before[-1]["role"] == "user" and before == _before_answer(raw["rejected"]) else None


def _answer(value: Any) -> str | None:
    """The text of an answer: a text, or the last assistant message of a list; None where it is neither."""
    if is_text(value):
        return value
    place = _answer_place(value)
    return None if place is None else value[place]["content"]


def _before_answer(value: Any) -> list[Message]:
    """The messages before the last assistant message; none for a plain text."""
    place = _answer_place(value)
    return [Message(role=m["role"], content=m["content"]) for m in value[:place]] if place else []


def _answer_place(value: Any) -> int | None:
    if not is_messages(value):
        return None
    return max((i for i, message in enumerate(value) if message["role"] == "assistant"), default=None)


def _raw_records(params: LoadParams) -> Iterator[Any]:
    """The source's records as it has them."""
    if params.source == "demo":
        return iter(build_rows(instructions=params.instructions, seed=params.seed))
    if params.path is None:
        return _hub_records(*HUB[params.source], revision=params.revision)
    if not Path(params.path).is_file():
        raise ParamsError(
            f"{PARAMS_FILE}: load.path: no such file {params.path!r}; give a .jsonl file, "
            "or null to download the hub dataset"
        )
    return read_values(params.path)


def _hub_records(hub_id: str, split: str, revision: str | None) -> Iterator[Any]:
    """The records of a hub dataset; needs the network unless it is in the cache of `datasets`."""
    try:
        import datasets

        yield from datasets.load_dataset(hub_id, revision=revision, split=split)
    except Exception as error:  # the network, the hub, the disk, and the dataset's own faults all end here
        detail = " ".join(f"{type(error).__name__}: {error}".split())
        raise ParamsError(
            f"{PARAMS_FILE}: load.path: cannot read {hub_id} at {revision} from the hub ({detail[:300]}); "
            "offline, set load.path to a .jsonl file of it"
        ) from None


PARSERS: dict[str, Callable[[Any], Iterator[Row | Rejected]]] = {
    "demo": lambda raw: parse_ultrafeedback(raw, "demo"),
    "ultrafeedback": parse_ultrafeedback,
    "ultrafeedback_binarized": parse_binarized,
}
