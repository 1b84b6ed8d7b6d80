"""Which split a prompt is in: a function of the prompt, its near-duplicates and the seed, and of no order of rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

from rlhf_lib.data.prepare.entries import Cluster, Entry
from rlhf_lib.data.prepare.fill import fill_empty
from rlhf_lib.data.prepare.params import MixtureParams, PrepareParams, Role
from rlhf_lib.data.prepare.roles import TESTED, has_use, left_of, shares_of

if TYPE_CHECKING:
    from numpy import uint32
    from numpy.typing import NDArray

PERMUTATIONS = 128  # of a MinHash signature: its estimate of a similarity of .8 is off by .035 (one standard deviation)
RUN = 5  # words


def digest(normalised_prompt: str, seed: int) -> bytes:
    """16 bytes that place a prompt: its part, whether it is held out, and whether a mixture takes it."""
    return blake2b(f"{seed}\n{normalised_prompt}".encode(), digest_size=16).digest()


def minhash(normalised_prompt: str) -> NDArray[uint32]:
    """A signature of the prompt's runs of 5 words: the share of equal places estimates their Jaccard similarity.

    Broder, "On the resemblance and containment of documents", 1997; the hash functions are multiply-shift.
    """
    import numpy

    words = normalised_prompt.split()
    runs = {" ".join(words[i : i + RUN]) for i in range(max(1, len(words) - RUN + 1))}
    hashed = numpy.frombuffer(b"".join(blake2b(run.encode(), digest_size=8).digest() for run in runs), "<u8")
    # drawn by a hash: a generator's numbers may differ from one version of numpy to another
    drawn = b"".join(blake2b(bytes([number]), digest_size=16).digest() for number in range(PERMUTATIONS))
    factors, terms = numpy.frombuffer(drawn, "<u8").reshape(2, PERMUTATIONS)
    factors = factors | numpy.uint64(1)
    return ((hashed[:, None] * factors + terms) >> numpy.uint64(32)).min(axis=0).astype("uint32")


def assign(entries: Sequence[Entry], params: PrepareParams) -> None:
    """Give each entry its split, or the reason why it has none. The sources have their roles by `roles.settle`."""
    kept = _without_bad(_drop_duplicates(entries))
    clusters = [Cluster(_cluster_key(found), found) for found in _clusters(kept, params.minhash_threshold)]
    _mix(kept, params.mixture)
    for cluster in clusters:
        roles = {role for entry in cluster.entries for role in entry.roles}
        cluster.pinned = params.upstream_test and any(entry.test for entry in cluster.entries)
        cluster.split = split_of(cluster.key, roles, cluster.pinned, params)
    fill_empty(clusters, params)
    for cluster in clusters:
        for entry in cluster.entries:
            if not has_use(cluster.split, entry.roles, params):
                entry.dropped = entry.dropped or "split_of_another_role"
            elif entry.dropped is None:
                entry.split = cluster.split


def split_of(key: bytes, roles: set[Role], test: bool, params: PrepareParams) -> str:
    """ "test", or a part (sft, reward, preference, judge) with "_train" or "_validation".

    A threshold on the key, so that it depends on no other row. The test split comes first: other shares of the parts
    leave it as it is. Validation has bits of its own, for the same reason. Only prompts of the roles in `TESTED` can be
    tests; those that have the role test alone all are.
    """
    place, held = (int.from_bytes(half, "big") / 2**64 for half in (key[:8], key[8:]))
    parts = shares_of(roles, params)
    if TESTED & roles:
        if test or place < params.test_share or not parts:
            return "test"
        place = (place - params.test_share) / (1 - params.test_share)
    half = "validation" if test or held < params.validation_share else "train"
    rest = place * sum(parts.values())
    for part, share in parts.items():
        if rest < share:
            return f"{part}_{half}"
        rest -= share
    return f"{next(reversed(parts))}_{half}"  # a place of nearly 1, after rounding


def _drop_duplicates(entries: Sequence[Entry]) -> list[Entry]:
    """The entries that are kept: of each prompt the first of a source, in the order of the sources, for the roles that
    no earlier source has for it. The others are merged into it or dropped."""
    first: dict[bytes, list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: entry.source.rank):
        earlier = first.setdefault(entry.key, [])
        own = [other for other in earlier if other.source is entry.source]
        if all(_asks_another(entry, other) for other in own):
            taken = [role for other in earlier if other.source is not entry.source for role in other.roles]
            entry.roles = left_of(entry.source.roles, taken)
            if entry.roles:
                earlier.append(entry)
                continue
        leader = next((other for other in own if other.columns == entry.columns), (own or earlier)[0])
        leader.test |= entry.test
        if leader.columns and entry.columns and leader.columns != entry.columns:
            entry.dropped = "columns_differ"  # which of them holds, nobody can know
        else:
            entry.dropped = "merged" if own and _merge(leader, entry) else "duplicate_prompt"
        if entry.dropped == "merged":
            leader.columns = leader.columns or entry.columns
            leader.merged.append(entry)
            leader.answers |= entry.answers
            leader.unscored |= entry.unscored
            leader.scores = spread(leader.scores, entry.scores)
    return [entry for of_prompt in first.values() for entry in of_prompt]


def _merge(one: Entry, other: Entry) -> bool:
    """Whether two rows of one prompt and source are one. Labelled pairs are not: nobody compared an answer of one with
    an answer of the other."""
    has_pair = any(entry.answers and not entry.answer for entry in (one, other))
    return one.source.merges and not (one.source.labels and has_pair)


def _without_bad(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, those whose answers are all bad without the role sft; not those that are for nothing else."""
    for entry in entries:
        is_bad = entry.source.labels and not entry.unscored and entry.scores is not None and entry.scores[1] == 0
        if is_bad and "sft" in entry.roles:
            entry.roles = [role for role in entry.roles if role != "sft"]
            entry.dropped = None if {*entry.roles} - {"test"} else "no_good_answer"
    return [entry for entry in entries if entry.dropped is None]


def _asks_another(entry: Entry, other: Entry) -> bool:
    """Whether two rows that count as one prompt are two: 7 - 3 and 7 * 3 differ in punctuation, and in solutions."""
    return bool(entry.columns and other.columns) and entry.columns != other.columns and entry.asked != other.asked


def spread(one: tuple[float, float] | None, other: tuple[float, float] | None) -> tuple[float, float] | None:
    """The least and the greatest of two pairs of least and greatest; None is no pair."""
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])


def _clusters(entries: Sequence[Entry], threshold: float | None) -> list[list[Entry]]:
    """The entries that must be in one split: each alone, or with its near-duplicates, and theirs, and so on."""
    parent = list(range(len(entries)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = place = parent[parent[place]]
        return place

    first: dict[bytes, int] = {}
    for place, entry in enumerate(entries):
        parent[place] = first.setdefault(entry.key, place)
    if threshold is not None:
        for one, other in _near_duplicates(entries, threshold, root):
            parent[root(one)] = root(other)
    found: dict[int, list[Entry]] = {}
    for place, entry in enumerate(entries):
        found.setdefault(root(place), []).append(entry)
    return list(found.values())


def _near_duplicates(
    entries: Sequence[Entry], threshold: float, root: Callable[[int], int]
) -> Iterator[tuple[int, int]]:
    """Places of entries whose signatures agree on a share of at least `threshold`: as many of all such twos as join
    what belongs together. What has one `root` is joined already.

    Signatures are cut into one band more than they may have places that differ, so that two such ones have at least
    one band in common [Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, section 3.4].
    """
    import numpy

    signatures = numpy.array([entry.signature for entry in entries]).reshape(len(entries), PERMUTATIONS)
    bands = min(PERMUTATIONS, int(PERMUTATIONS * (1 - threshold) + 1e-9) + 1)
    width = PERMUTATIONS // bands
    for start in range(0, bands * width, width):
        buckets: dict[bytes, list[int]] = {}
        for place, band in enumerate(signatures[:, start : start + width]):
            buckets.setdefault(band.tobytes(), []).append(place)
        for places in buckets.values():
            left = numpy.array(places if len({*map(root, places)}) > 1 else [], dtype=int)
            of_left = signatures[left]
            while len(left) > 1:
                todo, left, of_left = [left[0]], left[1:], of_left[1:]
                while todo and len(left):
                    one = todo.pop()
                    alike = (of_left == signatures[one]).sum(axis=1, dtype="uint8") / PERMUTATIONS >= threshold
                    if alike.any():
                        todo += [*left[alike]]
                        yield from ((one, other) for other in left[alike])
                        left, of_left = left[~alike], of_left[~alike]


def _cluster_key(cluster: Sequence[Entry]) -> bytes:
    """The key of one of the entries; not the least, which would be small more often than not."""
    return min((entry.key for entry in cluster), key=lambda key: blake2b(key, person=b"cluster").digest())


def _mix(entries: Sequence[Entry], mixture: Mapping[str, MixtureParams]) -> None:
    """Drop what is more than the mixture takes of each source; which rows, depends on their prompts alone."""
    counts = Counter(entry.source.name for entry in entries)
    quotas = quota(counts, mixture)
    for name in counts:
        rows = [entry for entry in entries if entry.source.name == name]
        rows.sort(key=lambda entry: blake2b(entry.key, person=b"mixture").digest())
        for entry in rows[quotas[name] :]:
            entry.dropped = "not_in_mixture"


def quota(counts: Mapping[str, int], mixture: Mapping[str, MixtureParams]) -> dict[str, int]:
    """How many rows of each source are kept: as many as caps, weights and shares allow together.

    First the caps; then the sources with weights are cut to the proportion of their weights; then all are cut until
    the sources with shares have them (those without one share what is left, as they are to each other).
    """
    have = {name: float(min(n, mixture.get(name, MixtureParams()).max_rows or n)) for name, n in counts.items()}
    weights = {name: entry.weight for name, entry in mixture.items() if entry.weight and name in have}
    unit = min((have[name] / weight for name, weight in weights.items()), default=0.0)
    have |= {name: unit * weight for name, weight in weights.items()}
    shares = {name: entry.share for name, entry in mixture.items() if entry.share and name in have}
    if shares:
        others = sum(n for name, n in have.items() if name not in shares)
        left = 1 - sum(shares.values())
        total = min(have[name] / share for name, share in shares.items())
        if others and left > 1e-9:
            total = min(total, others / left)
        cut = left * total / others if others else 0.0
        have = {name: total * shares[name] if name in shares else n * cut for name, n in have.items()}
    return {name: int(n + 1e-9) for name, n in have.items()}  # rounded once: two roundings lose a proportion
