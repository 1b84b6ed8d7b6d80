"""Best-of-n sampling: of n answers of the SFT model, the one that the reward model likes best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from statistics import fmean
from typing import Any

from rlhf_lib.evaluation.samples import Sample
from rlhf_lib.measure import length_control
from rlhf_lib.measure.comparison import Opponents, group_by_prompt
from rlhf_lib.measure.estimates import Estimate, with_errors
from rlhf_lib.measure.policy_metrics import Value, chosen_responses, estimated, measures, of_prompt


def kl_bound(n: int) -> float:
    """log n - (n-1)/n: the most that the best of n can be from the policy that it is drawn from, in nats.

    The KL is lower where the policy often gives the same answer [Beirami 2024, arXiv:2401.01879].
    """
    return math.log(n) - (n - 1) / n


def subsets(rewards: Sequence[float], n: int) -> list[float]:
    """Of how many of the C(N, n) subsets of n of N candidates each is the best; equals share.

    The i-th from below is the best of C(i-1, n-1). The mean of anything, weighted by these, is its unbiased estimate
    for the best of n [Nakano 2021, arXiv:2112.09332, appendix I].
    """
    shares: dict[float, list[int]] = {}
    for place, reward in enumerate(sorted(rewards)):
        shares.setdefault(reward, []).append(math.comb(place, n - 1))
    return [fmean(shares[reward]) for reward in rewards]


def best_of_n_metrics(
    candidates: Sequence[Sample], baseline: Sequence[Sample], dataset: Sequence[Sample], sizes: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """The numbers of the best of each of `sizes` candidates, under the names that a policy's have.

    `baseline` are the SFT model's own samples, with all of which of a prompt a candidate is compared, and `dataset`
    the dataset's own responses. No prompt has fewer candidates than the greatest size.
    """
    sft = partial(of_prompt, group_by_prompt(baseline))
    values = measures(candidates, sft, partial(of_prompt, chosen_responses(dataset)))
    prompts = list(group_by_prompt(candidates).values())
    found = {n: {name: estimated(name, expected(prompts, n, value)) for name, value in values.items()} for n in sizes}
    if "judge" in values:
        for n in sizes:
            found[n]["judge_lc_win_rate"] = lc_win_rate(prompts, n, sft)
    return {f"n{n}": {"n": n, "kl_bound": kl_bound(n), **with_errors(found[n])} for n in sizes}


def expected(prompts: Sequence[Sequence[Sample]], n: int, value: Value) -> list[float]:
    """The expected value of the best of n of each prompt's candidates; prompts without a value are left out."""
    found = []
    for candidates in prompts:
        values = [v for candidate in candidates if (v := value(candidate)) is not None]
        if len(values) == len(candidates):
            found.append(fmean(values, subsets([candidate["reward"] for candidate in candidates], n)))
    return found


def lc_win_rate(prompts: Sequence[Sequence[Sample]], n: int, sft: Opponents) -> Estimate:
    """The judge's length-controlled win rate of the best of n of each prompt's candidates over the SFT model's samples,
    each candidate with the weight that it has in `expected`."""
    matches = []
    for candidates in prompts:
        shares = subsets([candidate["reward"] for candidate in candidates], n)
        matches += length_control.matches(candidates, sft, shares)
    return length_control.controlled(matches)
