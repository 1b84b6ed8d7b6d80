"""Several rows of one prompt as one, and several votes on one answer as one."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from rlhf_lib.common.rows import Row, ScoredResponse
from rlhf_lib.data.prepare.clean import has_columns


def merged(row: Row, others: Sequence[Row], labels: bool) -> tuple[Row, list[str]]:
    """`row` with what later rows of its prompt have, and the answers that are left out, as the votes on them are tied.

    labels: the scores are votes, 1 and 0. An answer gets that of most votes on it, or else the mean of its scores.
    """
    votes: dict[str, list[float]] = {}
    for one in (row, *others):
        if has_columns(one):  # they agree, where several have them
            row = {**row, "columns": one["columns"]}
        for response in one["responses"]:
            found = votes.setdefault(response["content"], [])
            if response["score"] is not None:
                found.append(response["score"])
    scores = {content: fmean(found) if found else None for content, found in votes.items()}
    tied = [content for content, score in scores.items() if labels and score == 0.5]
    responses: list[ScoredResponse] = [
        {"content": content, "score": float(score > 0.5) if labels and score is not None else score}
        for content, score in scores.items()
        if content not in tied
    ]
    return {**row, "responses": responses}, tied
