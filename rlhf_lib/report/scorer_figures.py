"""The pictures of the reward model and the judge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rlhf_lib.report.drawing import COLOURS, Panel, mark
from rlhf_lib.report.inputs import Inputs, error, is_number
from rlhf_lib.report.tables import SCORER_LABELS, first_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def scorers(inputs: Inputs) -> list[Panel]:
    """Of the reward model and the judge: accuracy by score gap, calibration, and the reward by the dataset's score."""
    panels = []
    if any(summary.get("accuracy_by_gap") for summary in inputs.reward_models.values()):
        words = (
            "Share of test pairs that are ordered rightly, by how far apart their scores are; with one standard error."
        )
        panels.append(Panel("scorers-gap", "Accuracy by gap of the scores", words, lambda a: _by_gap(a, inputs)))
    if any(summary.get("reliability") for summary in inputs.reward_models.values()):
        words = (
            "Share of test pairs that the model orders rightly, with one standard error, by the probability it gives; "
            "the diagonal is ideal."
        )
        panels.append(Panel("scorers-reliability", "Calibration", words, lambda a: _reliability(a, inputs)))
    if any(_by_score(rows) for rows in inputs.scores.values()):
        words = "Mean reward by the score in the data; the whisker is one standard error."
        panels.append(Panel("scorers-score", "Reward by score in the data", words, lambda a: _score(a, inputs)))
    return panels


def _by_gap(axes: Axes, inputs: Inputs) -> None:
    gaps = [g for summary in inputs.reward_models.values() for g in summary.get("accuracy_by_gap") or {}]
    names = sorted(dict.fromkeys(gaps), key=first_number)
    for offset, (stage, summary) in zip((-0.08, 0.08), inputs.reward_models.items(), strict=False):
        bins = summary.get("accuracy_by_gap") or {}
        points = [
            (names.index(name) + offset, entry["accuracy"], error(entry, "accuracy"))
            for name, entry in sorted(bins.items(), key=lambda item: first_number(item[0]))
            if is_number(entry.get("accuracy"))
        ]
        if points:
            x, y, errors = zip(*points, strict=True)
            axes.errorbar(x, y, yerr=errors, ls="-", lw=0.8, **mark(stage, SCORER_LABELS[stage]))
    axes.axhline(0.5, color=COLOURS["muted"], lw=0.8, ls=":")
    axes.set_xticks(range(len(names)), [name.replace("-", "–") for name in names])
    axes.set(xlabel="gap of the scores", ylabel="share ordered rightly")


def _reliability(axes: Axes, inputs: Inputs) -> None:
    axes.axline((0.5, 0.5), slope=1, color=COLOURS["muted"], lw=0.8, ls=":")
    for stage, summary in inputs.reward_models.items():
        bins = [entry for entry in summary.get("reliability") or [] if entry.get("pairs")]
        if bins:
            x, y = ([entry[key] for entry in bins] for key in ("probability", "accuracy"))
            errors = [error(entry, "accuracy") for entry in bins]
            axes.errorbar(x, y, yerr=errors, ls="-", lw=0.8, **mark(stage, SCORER_LABELS[stage]))
    axes.set(xlabel="predicted probability", ylabel="share ordered rightly")


def _by_score(rows: Sequence[Mapping[str, Any]], most: int = 10) -> list[tuple[float, float, float]]:
    """(mean score, mean reward, its standard error), rewards in their standard deviations, in up to `most` groups of
    like scores, of near equal size; one score is never in two groups."""
    known = [row for row in rows if is_number(row.get("score")) and is_number(row.get("reward"))]
    if len(known) < 2:
        return []
    mean, spread = fmean(row["reward"] for row in known), stdev(row["reward"] for row in known) or 1.0
    groups: list[list[tuple[float, float]]] = [[]]
    for score, reward in sorted((row["score"], (row["reward"] - mean) / spread) for row in known):
        if len(groups[-1]) >= len(known) / most and score != groups[-1][-1][0]:
            groups.append([])
        groups[-1].append((score, reward))
    return [_group_point([score for score, _ in group], [reward for _, reward in group]) for group in groups]


def _group_point(scores: Sequence[float], rewards: Sequence[float]) -> tuple[float, float, float]:
    spread = stdev(rewards) if len(rewards) > 1 else 0.0
    return fmean(scores), fmean(rewards), spread / math.sqrt(len(rewards))


def _score(axes: Axes, inputs: Inputs) -> None:
    for stage, rows in inputs.scores.items():
        if points := _by_score(rows):
            x, y, errors = zip(*points, strict=True)
            axes.errorbar(x, y, yerr=errors, ls="-", lw=0.8, **mark(stage, SCORER_LABELS[stage]))
    axes.set(xlabel="score in the data", ylabel="reward (standard deviations)")
