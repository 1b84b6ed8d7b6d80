"""The params of stage `load`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from rlhf_lib.params.schema import AtLeast


@dataclass(frozen=True)
class LoadParams:
    """Where the rows come from; see the comments in params.yaml."""

    source: Literal["demo", "ultrafeedback", "ultrafeedback_binarized"]
    path: str | None
    revision: str | None
    max_rows: Annotated[int, AtLeast(1)] | None
    instructions: Annotated[int, AtLeast(1)]
    seed: int

    def __post_init__(self) -> None:
        if self.source == "demo":
            if self.path is not None:
                raise ValueError(f"path: must be null while load.source is demo, got {self.path!r}")
        elif self.path is None and not re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            # a branch name moves, and with it every number downstream
            raise ValueError(
                "revision: must be a commit of the hub dataset (40 hex digits) while load.path is null, "
                f"got {self.revision!r}; or set load.path to a local .jsonl file"
            )
