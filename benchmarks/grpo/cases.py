"""The cases of the benchmark without a critic: which trainer of TRL's, and the settings of both sides."""

from __future__ import annotations

from typing import Any

from benchmarks.ppo.cases import LIKE_FOR_LIKE, PLAIN, Case

COPIES = 4  # responses to a prompt

ALONE: dict[str, Any] = {
    **LIKE_FOR_LIKE,
    **PLAIN,
    "critic": "none",
    "lora_r": None,
    "num_generations": COPIES,
    "whiten_advantages": False,
}
RLOO = {**ALONE, "advantage_estimator": "rloo", "loss_aggregation": "constant"}
GRPO = {
    **ALONE,
    "advantage_estimator": "grpo",
    "scale_rewards": "group",
    "kl_in": "loss",
    "kl_estimator": "k3",
    "use_bias_correction_kl": True,
}
# an epoch, as both of TRL's trainers have it
WORK: dict[str, Any] = {"epochs": 1, "minibatches": 4}

# TRL's trainers by the first word of a case's name
TRAINERS = {"grpo": "GRPO", "rloo": "RLOO"}
CASES: dict[str, Case] = {
    "grpo": Case(about="GRPO, fp32", ours=GRPO, **WORK),
    "rloo": Case(about="RLOO, fp32", ours=RLOO, **WORK),
    "grpo_early_eos": Case(about="GRPO, fp32, responses that end early", ours=GRPO, eos_probability=0.03, **WORK),
    "rloo_early_eos": Case(about="RLOO, fp32, responses that end early", ours=RLOO, eos_probability=0.03, **WORK),
    "grpo_gpt2": Case(about="GRPO, GPT-2 of 124 million parameters, fp32", ours=GRPO, size="gpt2", batch=8, **WORK),
}
