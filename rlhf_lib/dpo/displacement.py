"""Chosen answers that DPO made less likely: it learns a difference of two log-probs, which may widen as both fall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlhf_lib.dpo.params import DPOParams

GROWTH = 1.5  # of the chosen answers' negative log-prob, above which it is told


def told(log: Sequence[Mapping[str, float]], params: DPOParams) -> str | None:
    """A line where at the last validation the chosen answers' negative log-prob is more than `GROWTH` times the SFT
    model's: likelihood displacement (Razin et al. 2024, arXiv:2410.08847). None where it is not, or was not looked at.

    log: a trainer's, with TRL's `eval_logps/...` (nats), and `eval_rewards/...`, which is `beta` times their
    distance from the reference.
    """
    last = next((entry for entry in reversed(log) if "eval_logps/chosen" in entry), None)
    if last is None:
        return None
    moved = {side: last[f"eval_rewards/{side}"] / params.beta for side in ("chosen", "rejected")}
    now = last["eval_logps/chosen"]
    before = now - moved["chosen"]
    if -now <= GROWTH * -before:
        return None
    way_out = "give sft more weight in dpo.loss_weights" if "sft" in params.losses else "add sft to dpo.loss_type"
    return (
        f"dpo: chosen answers have become less likely: their mean log-prob on the validation is {now:.1f}, under the "
        f"SFT model {before:.1f} (rejected ones: {moved['rejected']:+.1f}); lower dpo.learning_rate, raise dpo.beta, "
        f"or {way_out} (docs/dpo.md)"
    )
