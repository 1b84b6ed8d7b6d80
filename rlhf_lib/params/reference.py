"""The `reference` section: what the reference log-probs of DPO depend on, and so what a DPO sweep must not change."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lib.params.training import MaxLength


@dataclass(frozen=True, kw_only=True)
class ReferenceParams:
    max_length: MaxLength
