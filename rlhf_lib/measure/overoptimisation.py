"""What a judge that PPO never saw says of its answers along the training.

A policy is trained on a reward model, which stands for what people want but is not that. Past some distance from the
policy that it started at, the reward still climbs while what it stands for falls: over-optimisation, or Goodhart's law
[Gao 2022, "Scaling laws for reward model overoptimization", arXiv:2210.10760]. Where the truth is not known, a second
reward model shows some of it, if it learnt from other prompts: it does not share the first one's chance errors. What
both have in common (their base model, the taste of those who scored the answers) it cannot show; true quality can,
where the source has a rule for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from rlhf_lib.common.rows import JsonObject, Message
from rlhf_lib.measure.estimates import mean_and_se
from rlhf_lib.scoring import true_quality

Judge = Callable[[Sequence[list[Message]], Sequence[str]], list[float]]

MEASURES = ("reward", "judge", "gold", "kl")
COLUMNS = ("rollout", *(name for measure in MEASURES for name in (measure, f"{measure}_se")))


def curve(completions: Iterable[JsonObject], judge: Judge) -> list[JsonObject]:
    """A row for each evaluation, by rollout: the means of `MEASURES` over the prompts, with their standard errors.

    completions: rows of data/samples/ppo_training.jsonl, of which the sampled ones count; one a prompt and evaluation.
    reward is the sum of ppo.reward_funcs, before penalties; judge is normalised, as RewardModel gives it; gold (0 to 1)
    is None where not every row's source has a rule for it; kl is in nats per response.
    """
    sampled = [row for row in completions if row["mode"] == "sampled"]
    prompts, texts = [row["prompt"] for row in sampled], [row["completion"] for row in sampled]
    measured = {name: [row[name] for row in sampled] for name in ("reward", "kl")} | {"judge": judge(prompts, texts)}
    if true_quality.known(sampled):
        measured["gold"] = true_quality.gold(prompts, texts)
    places: dict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(sampled):
        places[row["rollout"]].append(place)
    return [
        {"rollout": rollout, **_means({name: [values[i] for i in found] for name, values in measured.items()})}
        for rollout, found in sorted(places.items())
    ]


def _means(measured: dict[str, list[float]]) -> JsonObject:
    estimates = {name: mean_and_se(measured.get(name, [])) for name in MEASURES}
    return {key: value for name, (mean, se) in estimates.items() for key, value in ((name, mean), (f"{name}_se", se))}
