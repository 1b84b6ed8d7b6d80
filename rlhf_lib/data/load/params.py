"""The params of stage `load`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from keyword import iskeyword
from typing import Annotated, Literal

from rlhf_lib.common.rows import ROLES
from rlhf_lib.common.schema import AtLeast, AtMost, Count, NotEmpty, Processes, Seed

ReaderName = Literal[
    "demo",
    "ultrafeedback",
    "ultrafeedback_binarized",
    "ultrachat",
    "hh",
    "hh_prompts",
    "shp",
    "stack_exchange",
    "rm_static",
    "sft_static",
    "file",
]
Score = Literal["overall", "fine_grained", "helpfulness", "honesty", "instruction_following", "truthfulness"]

COLUMNS = (  # our names for the columns of a user's file
    "prompt",
    "input",
    "system",
    "messages",
    "chosen",
    "rejected",
    "score_chosen",
    "score_rejected",
    "response",
    "completion",
    "score",
    "label",
    "rank",
    "responses",
    "scores",
    "ranks",
    "choice",
    "preference_strength",
    "split",
)
SEVERAL = ("responses", "scores", "ranks")  # may each be made of several columns
OURS = (  # what the splits, the trainer or TRL's GRPOTrainer call their own: no column of a reward can have the name
    *("id", "source", "prompt", "prompts", "responses", "completion", "completions", "completion_ids"),
    *("trainer_state", "log_extra", "log_metric", "environments"),
)


@dataclass(frozen=True)
class SourceParams:
    """One source of rows; only `reader` must be given. See docs/data.md."""

    reader: ReaderName
    name: str = ""  # the reader's name where none is given
    path: str | None = None  # a local file or a glob; null: the hub dataset
    hub_id: str | None = None  # a hub dataset in the form that the reader knows; null: the reader's own
    revision: str | None = None  # its commit; null: the reader's own
    subsets: list[str] = field(default_factory=list)  # folders or files of the hub dataset; empty: those of the reader
    score: Score = "overall"  # ultrafeedback only
    columns: dict[str, str | list[str] | None] = field(default_factory=dict)  # file only: our name -> the file's
    choices: list[str | int | float | bool] = field(default_factory=list)  # file only: values of the column `choice`
    role_map: dict[str, str] = field(default_factory=dict)  # file only: roles of the file's messages -> ours
    # what reward functions get of each record: names of columns, or their name for it -> the file's
    reward_columns: list[str] | dict[str, str] = field(default_factory=list)
    test: bool = False  # whether all of it is for the test split
    max_records: Count | None = None  # of each file or hub split, from its beginning

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.reader)
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"name: must be letters, digits, '_', '-' and '.', got {self.name!r}")
        if self.reader == "demo" and (self.path or self.hub_id or self.revision or self.subsets):
            raise ValueError("path: the demo is made, not read: remove path, hub_id, revision and subsets")
        if self.path and (self.hub_id or self.revision or self.subsets):
            raise ValueError("path: remove it, or else hub_id, revision and subsets, which are of a hub dataset")
        if self.reader == "file" and not (self.path or self.hub_id):
            raise ValueError("path: must name a file or a glob (or give hub_id and revision)")
        if self.hub_id and not self.revision:
            raise ValueError("revision: must be the commit of hub_id, 40 hex digits")
        if self.revision is not None and not re.fullmatch(r"[0-9a-f]{40}", self.revision):
            # a branch name moves, and with it every number downstream
            raise ValueError(f"revision: must be a commit of the hub dataset, 40 hex digits, got {self.revision!r}")
        self._check_file_options()
        self._check_reward_columns()
        if self.score != "overall" and self.reader != "ultrafeedback":
            raise ValueError(f"score: only for reader ultrafeedback, which {self.reader} is not")

    def _check_file_options(self) -> None:
        for option in ("columns", "choices", "role_map"):
            if getattr(self, option) and self.reader != "file":
                raise ValueError(f"{option}: only for reader file, which {self.reader} is not")
        for name, column in self.columns.items():
            if name not in COLUMNS:
                raise ValueError(f"columns: no name {name!r}; the names are {', '.join(COLUMNS)}")
            if isinstance(column, list) and name not in SEVERAL:
                raise ValueError(f"columns: {name} is one column, not a list; only {', '.join(SEVERAL)} may be several")
        for role, ours in self.role_map.items():
            if ours not in ROLES:
                raise ValueError(f"role_map: {role} must become one of {', '.join(ROLES)}, not {ours!r}")

    @property
    def columns_of_reward(self) -> dict[str, str]:
        """The columns that reward functions get: their name for it -> the file's."""
        given = self.reward_columns
        return dict(given) if isinstance(given, dict) else {name: name for name in given}

    def _check_reward_columns(self) -> None:
        if self.reward_columns and self.reader == "demo":
            raise ValueError("reward_columns: the demo has no other columns; remove it")
        for name in self.columns_of_reward:
            if not name.isidentifier() or iskeyword(name):  # it becomes the name of an argument
                raise ValueError(
                    f"reward_columns: {name!r} can be no argument of a function; map a name to it, such as "
                    f"{{solution: {name!r}}}"
                )
            if name in OURS:
                raise ValueError(
                    f"reward_columns: {name} is taken; map another name to the column, such as {{my_{name}: {name}}}"
                )


@dataclass(frozen=True)
class LoadParams:
    """Where the rows come from; see the comments in params.yaml."""

    sources: Annotated[list[SourceParams], NotEmpty()]
    instructions: Annotated[int, AtLeast(1), AtMost(1_000_000)]
    num_proc: Processes | None
    seed: Seed

    def __post_init__(self) -> None:
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"sources: two are called {name!r}; give each a name of its own")
