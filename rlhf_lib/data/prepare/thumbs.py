"""Sources of thumbs: answers that are good or bad, each alone, so that there are no two of a prompt to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlhf_lib.data.prepare.entries import Entry, SourceInfo
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.data.prepare.split import spread

FEW_PAIRS = 0.1  # of a source's prompts with labels: below, whoever gave them compared nothing


def settle(sources: Sequence[SourceInfo], entries: Sequence[Entry], params: PrepareParams) -> list[SourceInfo]:
    """The sources, those of thumbs with the role `kto` for `preference`, unless the mixture gives them their roles."""
    return [
        replace(source, roles=["kto" if role == "preference" else role for role in source.roles])
        if "preference" in source.roles and _is_of_thumbs(source, entries) and not _has_roles(source, params)
        else source
        for source in sources
    ]


def _has_roles(source: SourceInfo, params: PrepareParams) -> bool:
    return source.name in params.mixture and params.mixture[source.name].roles is not None


def _is_of_thumbs(source: SourceInfo, entries: Sequence[Entry]) -> bool:
    if not source.labels:
        return False
    found: dict[bytes, tuple[float, float] | None] = {}  # the least and the greatest label of each prompt
    for entry in entries:
        if entry.source.name == source.name and entry.scores is not None:
            found[entry.key] = spread(found.get(entry.key), entry.scores) if source.merges else entry.scores
    compared = sum(scores is not None and scores[0] < scores[1] for scores in found.values())
    return compared < FEW_PAIRS * len(found)
