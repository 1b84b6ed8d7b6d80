"""What decides on the split of a row: its source, its prompt, and what it gives to training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlhf_lib.data.prepare.params import Role

if TYPE_CHECKING:
    from numpy import uint32
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SourceInfo:
    """What `load` knows of a source, in data/raw/sources.json; `roles.settle` gives it the roles of the params."""

    name: str
    rank: int  # its place in the params: of a prompt that several sources have, the first one's row is kept
    roles: Sequence[Role]
    labels: bool  # scores only say which answer was preferred (1 or 0): their differences mean nothing
    merges: bool  # several rows of one prompt are one, but for labelled pairs
    score_range: Sequence[float] | None
    reward_columns: Sequence[str] = ()  # what reward functions get of its rows


@dataclass
class Entry:
    """A cleaned row, where it is in the file of cleaned rows, and what decides on its split."""

    offset: int
    source: SourceInfo
    test: bool  # whether upstream has it in a test split
    key: bytes
    scores: tuple[float, float] | None  # the least and the greatest
    answer: bytes = b""  # equal for equal answers, of a row that came with one alone
    answers: bool = False  # whether it has any
    unscored: bool = False  # whether it has one without a score
    columns: bytes = b""  # equal for rows of which reward functions get the same; empty where that is nothing
    asked: bytes = b""  # equal for prompts of the same letters; empty where the source has no columns for functions
    roles: Sequence[Role] = ()  # of its source, less those that an earlier source has for the same prompt
    signature: NDArray[uint32] | None = None
    merged: list[Entry] = field(default_factory=list)  # later rows of the same prompt, whose responses it gets
    split: str | None = None  # None: not used
    dropped: str | None = None  # why


@dataclass
class Cluster:
    """Entries that must be in one split, and where they are."""

    key: bytes  # of one of them: as rare as any other
    entries: list[Entry]
    pinned: bool = False  # in a split that upstream chose
    split: str = ""
