"""The best that any policy could reach, beside what those here did: a curve, two tables, and who is to blame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlhf_lib.common.few import FEW, few
from rlhf_lib.common.policies import LABELS
from rlhf_lib.evaluation.samples import mode_name
from rlhf_lib.report.columns import ESS, GOLD, JUDGE, KL, OBJECTIVE, SCORE, SHARE, Column
from rlhf_lib.report.differences import NAMES, Difference, plus_minus
from rlhf_lib.report.drawing import COLOURS
from rlhf_lib.report.inputs import Inputs, error
from rlhf_lib.report.tables import Table, table
from rlhf_lib.report.verdict import CRITERIA, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABEL = "attainable"
BEYOND = 1.5  # the curve is drawn as far as so many times the KL of what else is shown
AT_BETA = [OBJECTIVE, SHARE, SCORE, KL, JUDGE, GOLD, ESS]
AT_KL = [
    KL,
    SCORE,
    Column("score_at_kl", "attainable", 2, "", "the most of it that any policy has at this KL"),
    Column("score_share", "share of the gain", 2, "", "of what is attainable at this KL, counted from SFT"),
    Column("judge_gap", "judge: missing", 2, "+", "what the best policy at this KL has more"),
    Column("gold_gap", "true quality: missing", 3, "+", "what the best policy at this KL has more"),
]


def is_there(inputs: Inputs) -> bool:
    """Whether it was estimated."""
    return "objective" in inputs.attainable


def compared(inputs: Inputs) -> list[str]:
    """The policies of which it is known what they reached of it."""
    return [policy for policy in inputs.policies if policy in inputs.attainable.get("policies", {})]


def points(inputs: Inputs, key: str, furthest: float) -> list[Point]:
    """(KL, mean, standard error) of the best policies from SFT on, up to the first past `furthest`.

    The mean is SFT's, as it is shown, and their gain over SFT on the prompts that it was estimated on; the error is
    that of the gain.
    """
    shown, gain = inputs.measured("sft").get(key), f"{key}_gain"
    if shown is None or mode_name(inputs.params["ppo"]["temperature"]) != inputs.headline:
        return []
    rows: list[Point] = sorted(
        (kl, shown + value, error(row, gain))
        for row in inputs.attainable_curve
        if (kl := row["kl"]) is not None and (value := row.get(gain)) is not None
    )
    near = sum(kl <= furthest for kl, *_ in rows)
    return [(0.0, shown, 0.0), *rows[: near + 1]] if rows else []


def draw(axes: Axes, inputs: Inputs, key: str, furthest: float) -> None:
    """The curve of what could be reached, with a band of one standard error; nothing where it was not estimated."""
    if found := points(inputs, key, BEYOND * furthest):
        x, y, errors = zip(*found, strict=True)
        low, high = ([v + s * e for v, e in zip(y, errors, strict=True)] for s in (-1, 1))
        axes.plot(x, y, color=COLOURS["attainable"], ls="--", lw=1.1, label=LABEL)
        axes.fill_between(x, low, high, color=COLOURS["attainable"], alpha=0.12, linewidth=0)


def objective_table(inputs: Inputs) -> Table:
    """The objective at `ppo.kl_coef`: of the best policy, and of those that are here."""
    found = inputs.attainable
    if not is_there(inputs):
        return table(AT_BETA, [])
    sft = {**found["sft"], "objective": found["sft"]["score"], "objective_se": found["sft"]["score_se"], "kl": 0.0}
    rows: list[tuple[str, str, Mapping[str, Any]]] = [("attainable", LABEL, found), ("sft", LABELS["sft"], sft)]
    rows += [(name, LABELS[name], found["policies"][name]) for name in compared(inputs)]
    return table(AT_BETA, [("", rows)])


def share_table(inputs: Inputs) -> Table:
    """Each policy at its own KL, beside the best policy there."""
    reached = inputs.attainable.get("policies", {})
    rows = [(name, LABELS[name], reached[name]) for name in compared(inputs) if "beta_at_kl" in reached[name]]
    return table(AT_KL, [("", rows)])


def blame(inputs: Inputs) -> str:
    """Whether PPO as an optimiser, or the reward that it was given, limits what it reached; empty where not known."""
    reached = inputs.attainable.get("policies", {}).get("ppo", {})
    criterion = next((key for key in CRITERIA if f"{key}_gap" in reached), None)
    if "score_gap" not in reached or criterion is None:
        return ""
    reward, quality = (Difference(reached[f"{k}_gap"], reached[f"{k}_gap_se"]) for k in ("score", criterion))
    name, prompts = NAMES[criterion], inputs.attainable["prompts"]
    got = f"PPO got {plus_minus(reached['score_share'], reached['score_share_se'])} of the gain in reward that is "
    if prompts < FEW:
        return f"What limits PPO is not known{few(prompts)}: {got}attainable at its KL."
    if not (reward.clear and reward.value > 0):
        return (
            f"No clear fault of the optimiser: {got}attainable at its KL. The best policy there differs by {quality} "
            f"in {name}; what is missing beyond that, only another reward model or a larger KL can give."
        )
    got += f"attainable at its KL, where the best policy has {reward} more"
    if quality.clear and quality.value > 0:
        return f"The optimiser is to blame: {got}, and {quality} more in {name}."
    if quality.clear:
        return f"The reward model is to blame: {got}, but is worse in {name} ({quality})."
    return (
        f"Undecided between optimiser and reward model: {got}, but no clear difference in {name} ({quality}): whether "
        "to optimise the same reward better would help is not known."
    )


def doubt(inputs: Inputs) -> str:
    """What it rests on, in a sentence."""
    found = inputs.attainable
    if not is_there(inputs):
        return ""
    share = f" On {found['low_ess']:.0%} of the prompts it is below 30." if found["low_ess"] else ""
    return (
        f"Estimated from {found['n']} answers of SFT to each of {found['prompts']} test prompts, weighted by "
        f"exp(reward / {found['beta']:g}): an effective sample size of {found['ess']:.0f}.{share}"
    )
