"""Few prompts: while there are rows, no file that is wanted stays empty.

A split is a threshold on the hash of a prompt, so of few prompts it may get none. It then gets one of another split:
one whose rows leave no file of theirs empty, of the largest such split the prompt with the least hash. That is a
function of the set of prompts and the seed, not of their order; where no file is empty, nothing moves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rlhf_lib.data.prepare.derive import is_pair
from rlhf_lib.data.prepare.entries import Cluster, Entry
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.data.prepare.roles import OF_FILE, TESTED, Use, pair_rule, parts_of, split_of_file, uses

# the files that are filled, the most needed first
ORDER = (
    *(f"{part}_train" for part in ("sft", "preference", "thumbs", "reward", "judge", "prompts")),
    "test",
    *(f"{part}_validation" for part in ("sft", "preference", "thumbs", "reward", "judge", "prompts")),
)


class Gives(NamedTuple):
    """A cluster, and what its rows have records for: uses, and "test" where they may be in the test split."""

    cluster: Cluster
    what: frozenset[str]

    def files(self, params: PrepareParams) -> Iterator[str]:
        """The files that have records of it in the split where it is."""
        part, _, half = self.cluster.split.partition("_")
        if part == "test":
            yield from ["test"] if "test" in self.what else []
        for name, use in OF_FILE.items():
            if name != "groups" and use in self.what and part in parts_of(use, params):
                yield f"{name}_{half}"


def fill_empty(clusters: Sequence[Cluster], params: PrepareParams) -> None:
    """Move clusters into the splits whose files would be empty, as far as others can spare them."""
    given = [Gives(cluster, frozenset(_what(cluster, params))) for cluster in clusters]
    counts = Counter(name for gives in given for name in gives.files(params))
    for name in ORDER:
        if counts[name] or (name == "test" and params.test_share == 0):
            continue
        wanted = OF_FILE.get(name.partition("_")[0], "test")
        sizes = Counter(gives.cluster.split for gives in given if gives.what)
        spare = [
            gives
            for gives in given
            if wanted in gives.what and not gives.cluster.pinned and all(counts[f] > 1 for f in gives.files(params))
        ]
        if not spare:
            continue
        moved = min(spare, key=lambda gives: (-sizes[gives.cluster.split], gives.cluster.key))
        counts.subtract(moved.files(params))
        moved.cluster.split = split_of_file(name, params)
        counts.update(moved.files(params))


def _what(cluster: Cluster, params: PrepareParams) -> Iterator[str]:
    for entry in cluster.entries:
        if entry.dropped is None:
            yield from (use for use in uses(entry.roles) if _has_records(entry, use, params))
            if TESTED & {*entry.roles}:
                yield "test"


def _has_records(entry: Entry, use: Use, params: PrepareParams) -> bool:
    """Whether the entry's row gives records to a use."""
    if use == "prompts":
        return True
    if use == "kto" and entry.source.labels:
        return entry.scores is not None
    if use == "sft":
        if entry.unscored or entry.scores is None:
            return entry.answers
        if entry.source.labels:  # of 1 and 0; what was rejected is nothing to learn from
            return any(entry.scores)
        low = params.sft_min_score if params.sft_responses == "above_score" else None
        return low is None or entry.scores[1] >= low
    return entry.scores is not None and is_pair(entry.scores[1], entry.scores[0], pair_rule(entry.source, params))
