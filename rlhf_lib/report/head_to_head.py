"""How often one policy's answers beat another's, and how often they would, were both equally long."""

from __future__ import annotations

from rlhf_lib.measure.length_control import win_rates
from rlhf_lib.report.differences import having
from rlhf_lib.report.inputs import Inputs, Metrics


def judged(inputs: Inputs, one: str, other: str, mode: str) -> Metrics:
    """The judge's win rate of a policy over another, raw and controlled for length, each with its error; empty where
    they share no prompt that the judge has scored."""
    first, second = (having(inputs.drawn(policy, mode), "judge") for policy in (one, other))
    (raw, raw_se), (controlled, controlled_se) = win_rates(first, second)
    if raw is None:
        return {}
    return {
        "judge_win_rate": raw,
        "judge_win_rate_se": raw_se,
        "judge_lc_win_rate": controlled,
        "judge_lc_win_rate_se": controlled_se,
    }
