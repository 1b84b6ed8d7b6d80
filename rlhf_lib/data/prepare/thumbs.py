"""Sources of thumbs: answers that are good or bad, each alone, so that there are no two of a prompt to compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from rlhf_lib.data.prepare.entries import Entry, SourceInfo
from rlhf_lib.data.prepare.params import PrepareParams

FEW_PAIRS = 0.1  # of a source's prompts with labels: below, whoever gave them compared nothing


def settle(sources: Sequence[SourceInfo], entries: Sequence[Entry], params: PrepareParams) -> list[SourceInfo]:
    """The sources, those of thumbs with the role `kto` for `preference`, unless the mixture gives them their roles."""
    return [
        replace(source, roles=["kto" if role == "preference" else role for role in source.roles])
        if "preference" in source.roles and _is_of_thumbs(source, entries) and not _has_roles(source, params)
        else source
        for source in sources
    ]


def fault(sources: Sequence[SourceInfo], entries: Sequence[Entry]) -> str | None:
    """What to change where answers for SFT are wanted and all are bad, as "<param>: ..."; else None."""
    wanted = any("sft" in source.roles for source in sources)
    given = [entry for entry in entries if entry.roles]
    if not wanted or not given or any("sft" in entry.roles for entry in given):
        return None
    return (
        f"load.sources: none of {len(given):,} rows has a good answer for SFT: all labels are 0; load good answers "
        "too, from this source or another"
    )


def _has_roles(source: SourceInfo, params: PrepareParams) -> bool:
    return source.name in params.mixture and params.mixture[source.name].roles is not None


def _is_of_thumbs(source: SourceInfo, entries: Sequence[Entry]) -> bool:
    if not source.labels:
        return False
    labelled = [entry for entry in entries if entry.source.name == source.name and entry.scores is not None]
    compared = {entry.key for entry in labelled if entry.scores and entry.scores[0] < entry.scores[1]}
    if source.merges:
        compared |= _with_good_and_bad([entry for entry in labelled if entry.answer])
    return len(compared) < FEW_PAIRS * len({entry.key for entry in labelled})


def _with_good_and_bad(entries: Sequence[Entry]) -> set[bytes]:
    """The prompts of which most votes on one answer are good, and most on another bad, of rows that have one each.

    Votes on one answer that differ are no comparison.
    """
    votes: Counter[tuple[bytes, bytes]] = Counter()
    for entry in entries:
        votes[entry.key, entry.answer] += 1 if entry.scores and entry.scores[0] > 0 else -1
    good, bad = ({key for (key, _), count in votes.items() if sign * count > 0} for sign in (1, -1))
    return good & bad
