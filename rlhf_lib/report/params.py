"""The `report` section: the page that stage report writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rlhf_lib.common.schema import AtLeast


@dataclass(frozen=True, kw_only=True)
class ReportParams:
    """What the page shows."""

    max_prompts: Annotated[int, AtLeast(1)]
