"""The `report` section: the page that stage report writes."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lib.common.schema import Count


@dataclass(frozen=True, kw_only=True)
class ReportParams:
    """What the page shows."""

    max_prompts: Count
