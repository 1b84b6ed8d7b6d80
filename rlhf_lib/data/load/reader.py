"""What a reader is: how the records of one kind of dataset become rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlhf_lib.common.rows import Row
from rlhf_lib.data.load.params import SourceParams


class Record(NamedTuple):
    """A record as its file or hub dataset has it."""

    place: str  # "answers.csv: row 7", for people
    value: Any  # the parsed value, or the bytes of a line of JSON that is yet to be parsed
    test: bool = False  # whether it is of the upstream's test split
    subset: str = ""  # the folder or file of the hub dataset, where it has several


class Rejected(NamedTuple):
    """A record, or one response of it (`response_...`), that is not used, and why."""

    reason: str
    source: str
    text: str = ""


Parse = Callable[[Any, SourceParams], Iterator[Row | Rejected]]


@dataclass(frozen=True)
class Hub:
    """Where a reader's dataset is on the hub."""

    id: str
    revision: str | None  # a commit; None: params must name one
    splits: Mapping[str, bool]  # the splits to read -> whether it is a test split
    subsets: tuple[str, ...] = ()  # read one after the other
    subset_files: str = "{}"  # the folder (data_dir) of a subset, or, if it has a dot, its files (data_files)


@dataclass(frozen=True)
class Reader:
    """A kind of dataset: how to parse one of its records, and what its rows are good for."""

    parse: Parse
    record: str = ""  # what one of upstream has, in words
    hub: Hub | None = None
    roles: tuple[str, ...] = ("sft", "preference", "prompts")
    merges: bool = False  # several records of one prompt are one row
    score_range: tuple[float, float] | None = None  # the scale of the scores, where there is one
