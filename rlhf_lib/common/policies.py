"""The policies that are made and compared: all that the code needs to know of one, but for how it is trained.

A policy is what the stage of its name makes: its params are the section of that name, but where the table has another,
its model is models/<name>. The table's order is that of the comparison. dvc.yaml cannot read it:
tests/repo/test_policies.py names the lines that it lacks.
"""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass


@dataclass(frozen=True)
class Policy:
    """How a policy is called and drawn, and which param holds it near the SFT model."""

    label: str  # as people write it
    colours: tuple[str, str]  # on a light ground and on a dark one
    marker: str  # matplotlib's
    learns_from: str  # the files of data/splits, <this>_train, without whose rows its stage leaves itself out
    coefficient: str = ""  # the param of its section that a sweep varies; some have none
    coefficient_label: str = ""  # what that is called in the names of experiments
    section: str = ""  # of params.yaml, where it is not the policy's own: a control has that of its method


# The colours are those of Okabe and Ito, which people with any colour vision tell apart, lightened on dark.
POLICIES = {
    "sft": Policy("SFT", ("#767676", "#a8a8a8"), "o", "sft"),
    "ppo": Policy("PPO", ("#d55e00", "#ff8b3d"), "s", "prompts", "kl_coef", "kl"),
    "dpo": Policy("DPO", ("#0072b2", "#56b4e9"), "^", "preference", "beta", "beta"),
    "rft": Policy("RFT", ("#e69f00", "#ffc14d"), "v", "prompts", "n", "n"),
    "rft_random": Policy("Random RFT", ("#7a5c2e", "#c9a66b"), "*", "prompts", "n", "n", section="rft"),
    "kto": Policy("KTO", ("#b0157f", "#f080c4"), "P", "thumbs", "beta", "beta"),
}
METHODS = {name: policy for name, policy in POLICIES.items() if name != "sft"}  # what the SFT model is aligned by
LABELS = {name: policy.label for name, policy in POLICIES.items()}
COEFFICIENTS = {name: policy.coefficient for name, policy in METHODS.items() if policy.coefficient}
# the section `methods`: which of them are trained
MethodsParams = make_dataclass("MethodsParams", [(name, bool) for name in METHODS], frozen=True)
TRAINERS = ("sft", "reward", "judge", *METHODS)  # the stages that train, and write curves


def section(stage: str) -> str:
    """The section of params.yaml that a stage which trains reads: that of its name or, of a control, its method's."""
    policy = POLICIES.get(stage)
    return policy.section if policy and policy.section else stage
