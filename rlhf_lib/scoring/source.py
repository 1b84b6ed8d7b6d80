"""An entry of `reward_funcs` as what it names, told apart without importing it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlhf_lib.common import environment

_FUNCTION = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*)")
_HUB = re.compile(r"([\w.-]+/[\w.-]+)(?:@(.*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
LOOKS_LOCAL = ("models/", "rewards/", ".", "/", "~")  # what no model of the hub begins with


@dataclass(frozen=True)
class RewardSource:
    """Where a reward comes from.

    location: a Python module, a directory or a hub id, by `kind`.
    attribute: the function's name in the module; None for models.
    revision: the commit of a hub model; None for the others.
    """

    kind: Literal["function", "directory", "hub"]
    location: str
    attribute: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """The function's name, or the last part of a model's path or id."""
        return self.attribute or Path(os.path.abspath(self.location)).name


def parse(entry: str) -> RewardSource:
    """One entry of `reward_funcs`: `module:function`, a model directory, or `owner/name@<commit>`.

    A `ValueError` of one line that begins with `reward_funcs:` for anything else.
    """
    path = os.path.expanduser(entry)
    if path and os.path.isdir(environment.project() / path):
        return RewardSource("directory", path)
    if ":" in entry:
        if (function := _FUNCTION.fullmatch(entry)) is None:
            raise ValueError(
                f"reward_funcs: a function is named module:function, as in rewards.examples:brevity, got {entry!r}"
            )
        return RewardSource("function", function[1], attribute=function[2])
    if entry.startswith(LOOKS_LOCAL):
        return RewardSource("directory", path)
    if (hub := _HUB.fullmatch(entry)) is None:
        raise ValueError(
            f"reward_funcs: {entry!r} is no reward; name a function (module:function), a model directory (models/..., "
            "rewards/... or ./...) or a hub model (owner/name@<commit>)"
        )
    if _COMMIT.fullmatch(hub[2] or "") is None:
        # a branch name moves, and with it every reward
        raise ValueError(
            "reward_funcs: the revision of a hub model must be pinned to a commit (40 hex digits): "
            f"write {hub[1]}@<commit>, got {entry!r}"
        )
    return RewardSource("hub", hub[1], revision=hub[2])


def directories(reward_funcs: Sequence[str]) -> list[str]:
    """The model directories among the entries. A `ValueError` as `parse` raises it."""
    return [source.location for source in map(parse, reward_funcs) if source.kind == "directory"]


def needs_hub(reward_funcs: Sequence[str]) -> bool:
    """Whether any entry is a hub model, so that the network is needed. A `ValueError` as `parse` raises it."""
    return any(parse(entry).kind == "hub" for entry in reward_funcs)
