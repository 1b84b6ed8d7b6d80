"""UltraFeedback, as openbmb/UltraFeedback has it (the demo too) and in its binarized forms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rlhf_lib.common.rows import Message, Row, as_score, is_text
from rlhf_lib.data.load.messages import chosen_row, usable_row
from rlhf_lib.data.load.params import Score, SourceParams
from rlhf_lib.data.load.reader import Rejected
from rlhf_lib.data.load.scores import read_score


def parse(raw: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    """One record {source, instruction, completions: [{response, annotations, overall_score, fine-grained_score}]}."""
    fields = raw if isinstance(raw, dict) else {}
    part, instruction, completions = (fields.get(key) for key in ("source", "instruction", "completions"))
    named = is_text(part) and bool(part)
    name = f"{source.name}/{part if named else 'unknown'}"
    if not (named and is_text(instruction) and isinstance(completions, list)):
        yield Rejected("malformed", name)
        return
    responses: list[tuple[str | None, float | None]] = []
    for completion in completions:
        answer = completion if isinstance(completion, dict) else {}
        text = answer.get("response") if is_text(answer.get("response")) else None
        if source.score == "overall" and _is_wrong_ten(answer):
            yield Rejected("response_wrong_score", name, text or "")
        else:
            responses.append((text, _score(answer, source.score)))
    yield from usable_row(name, [Message(role="user", content=instruction)], responses)


def parse_binarized(raw: Any, source: SourceParams) -> Iterator[Row | Rejected]:
    """One record {chosen, rejected, score_chosen, score_rejected}, with `prompt` where the answers are plain texts.

    The answers may also be the message lists of HuggingFaceH4/ultrafeedback_binarized and trl-lib's dataset of that
    name.
    """
    fields = raw if isinstance(raw, dict) else {}
    if not {"chosen", "rejected", "score_chosen", "score_rejected"} <= fields.keys():
        yield Rejected("malformed", source.name)
        return
    answers = [fields["chosen"], fields["rejected"]]
    given = [fields["score_chosen"], fields["score_rejected"]]  # texts where the file is CSV
    yield from chosen_row(source.name, fields.get("prompt"), answers, list(map(read_score, given)), given)


def _is_wrong_ten(completion: dict[str, Any]) -> bool:
    """Upstream wrote 10 for some answers it had scored 1; their fine-grained score gives them away."""
    overall, fine = as_score(completion.get("overall_score")), as_score(completion.get("fine-grained_score"))
    return overall is not None and overall >= 10 and fine is not None and fine <= 2


def _score(completion: dict[str, Any], score: Score) -> float | None:
    """The score that the params ask for; None where upstream has none."""
    if score == "overall":
        return as_score(completion.get("overall_score"))
    if score == "fine_grained":
        return as_score(completion.get("fine-grained_score"))
    aspects = completion.get("annotations")
    aspect = aspects.get(score) if isinstance(aspects, dict) else None
    rating = aspect.get("Rating") if isinstance(aspect, dict) else None
    if isinstance(rating, str):  # "1" to "5" or "N/A"
        return float(rating) if re.fullmatch(r"[1-5]", rating) else None
    return as_score(rating)
