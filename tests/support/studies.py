"""Studies of which the answers are made, for tests of what is told of them."""

from __future__ import annotations

import numpy as np

from rlhf_lib.study.design import Setting, Study
from rlhf_lib.study.results import Results

PPO = [Setting("ppo", (("kl_coef", value),)) for value in ("0.05", "0.2")]
DPO = [Setting("dpo", (("beta", value),)) for value in ("0.1", "0.5")]
STUDY = Study("judge", (0, 1, 2), {"ppo": PPO, "dpo": DPO})


def results(means, kls, prompts=60, noise=0.1, seed=0):
    """Results in which the settings' judge and true quality have these means, and these KLs; SFT's are 0."""
    generator = np.random.default_rng(seed)
    of_prompts = generator.normal(0, 0.3, prompts)

    def numbers(mean, kl):
        score = mean + of_prompts[:, None] + generator.normal(0, noise, (prompts, 3))
        return {
            "gold": score,
            "judge": 2 * score,
            "kl": np.full((prompts, 3), kl),
            "length": np.full((prompts, 3), 9.0),
        }

    settings = {s: numbers(mean, kl) for s, mean, kl in zip([*PPO, *DPO], means, kls, strict=True)}
    zeros = np.zeros(prompts)
    sft = {"gold": of_prompts, "judge": 2 * of_prompts, "kl": zeros, "length": zeros + 9}
    return Results(settings, sft)
