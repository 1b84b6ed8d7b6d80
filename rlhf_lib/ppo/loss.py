"""The loss of a micro-batch as the sum of its weighted terms."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rlhf_lib.ppo import algos
from rlhf_lib.ppo.model import PolicyOutput
from rlhf_lib.ppo.params import PPOParams


def loss_terms(
    params: PPOParams, kl_coef: float, output: PolicyOutput, inputs: dict[str, Any]
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What is measured of a micro-batch, and the weights in the loss of those of it that are terms of the loss.

    Each is the micro-batch's share of a mean over the tokens of its whole minibatch: its sum over tokens, divided by
    the minibatch's. Those of the policy and of its KL are aggregated as `loss_aggregation` says. `inputs` are those
    that `rollout.update_inputs` gives.
    """
    whole = inputs["num_tokens"], inputs["response_lengths"], params.minibatch_size, params.response_length
    old = inputs["logprobs"]
    clips = (params.cliprange, params.cliprange_high, params.dual_clip)
    policy = algos.policy_loss(output.logprobs, old, inputs["advantages"], *clips)
    terms = {"policy_loss": algos.aggregated(policy.loss, params.loss_aggregation, *whole)}
    weights = {"policy_loss": 1.0}
    sums = {
        "clip_fraction": policy.clipped.sum(),
        "ratio": policy.ratio.sum(),
        "approx_kl": algos.kl_estimate(old, output.logprobs, "k3").sum(),
    }
    if output.values is not None:
        value = algos.value_loss(output.values, inputs["values"], inputs["returns"], params.cliprange_value)
        sums["value_loss"], weights["value_loss"] = value.sum(), params.vf_coef
    if params.entropy_coef > 0:
        sums["entropy_loss"], weights["entropy_loss"] = -output.entropy.sum(), params.entropy_coef
    if params.kl_in == "loss":
        kl = algos.kl_estimate(output.logprobs, inputs["ref_logprobs"], params.kl_estimator)
        kl = kl * policy.ratio if params.use_bias_correction_kl else kl
        terms["kl_loss"] = algos.aggregated(kl, params.loss_aggregation, *whole)
        weights["kl_loss"] = kl_coef
    terms |= {name: total / inputs["num_tokens"] for name, total in sums.items()}
    if output.ptx_logprobs is not None:
        terms["ptx_loss"] = -output.ptx_logprobs.sum() / inputs["ptx_num_tokens"]
        weights["ptx_loss"] = params.ptx_coef
    return terms, weights
