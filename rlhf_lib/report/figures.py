"""The page's pictures, as panels: each is drawn for the page (SVG) and some for a README (PNG)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_lib.common.policies import LABELS
from rlhf_lib.report import attainable
from rlhf_lib.report.drawing import COLOURS, DOUBLE, MARKERS, NARROW, Panel, mark
from rlhf_lib.report.inputs import Curve, Inputs, error, is_number
from rlhf_lib.report.verdict import best_of_n_points, mode_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AXES = {
    "gold": "true quality (0 to 1)",
    "judge": "judge (standard deviations)",
    "reward": "reward (standard deviations)",
    "kl": "KL to SFT (nats per response)",
    "length": "tokens",
}
TITLES = {"gold": "True quality", "judge": "Judge", "reward": "Training reward", "kl": "KL to SFT"}
RUN_LABELS = {"reward": "reward", "judge": "judge", "gold": "true quality"}
MOST_POINTS = 400  # of a curve: more cannot be seen, and would make the page long


def policies(inputs: Inputs) -> list[Panel]:
    """A dot and whisker (one standard error) for each policy and mode, a panel a number."""

    def draw(key: str) -> Panel:
        def panel(axes: Axes) -> None:
            apart = min(0.22, 0.8 / len(inputs.policies))
            for offset, policy in enumerate(inputs.policies):
                places = [row + apart * (offset - (len(inputs.policies) - 1) / 2) for row in range(len(inputs.modes))]
                points = [
                    (measured[key], place, error(measured, key))
                    for place, mode in zip(places, inputs.modes, strict=True)
                    if key in (measured := inputs.measured(policy, mode))
                ]
                x, y, errors = zip(*points, strict=True) if points else ((), (), ())
                axes.errorbar(x, y, xerr=errors, **mark(policy, LABELS[policy]))
            axes.set_yticks(range(len(inputs.modes)), [mode_label(mode) for mode in inputs.modes])
            axes.set_ylim(len(inputs.modes) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
            axes.locator_params(axis="x", nbins=6)
            axes.set_xlabel(AXES[key])

        words = "A dot for each policy and sampling mode; the whisker is one standard error."
        return Panel(f"policies-{key}", TITLES[key], words, panel, NARROW)

    return [draw(key) for key in ("gold", "judge", "reward", "kl") if inputs.known(key)]


def frontier(inputs: Inputs) -> list[Panel]:
    """What each policy reached against its KL, beside best-of-n of the SFT model and below what any policy could."""

    def draw(key: str) -> Panel:
        def panel(axes: Axes) -> None:
            points = best_of_n_points(inputs, key)
            furthest = max([kl for kl, *_ in points] + [inputs.measured(policy)["kl"] for policy in inputs.policies])
            attainable.draw(axes, inputs, key, furthest)
            if len(points) > 1:
                x, y, errors = zip(*points, strict=True)
                axes.plot(x, y, color=COLOURS["best_of_n"], lw=1.1)
                axes.errorbar(x[1:], y[1:], yerr=errors[1:], **mark("best_of_n", "best of n"))  # the first is SFT
            for policy in inputs.policies:
                measured = inputs.measured(policy)
                whiskers: dict[str, Any] = {"xerr": error(measured, "kl"), "yerr": error(measured, key)}
                axes.errorbar(measured["kl"], measured[key], **whiskers, **mark(policy, LABELS[policy]))
            axes.set(xlabel=AXES["kl"], ylabel=AXES[key])
            axes.locator_params(axis="x", nbins=6)

        words = "A dot for each policy at the headline temperature; the line is best-of-n at the bound of its KL."
        words += " The broken line is what the best policy would have." if attainable.is_there(inputs) else ""
        return Panel(f"frontier-{key}", TITLES[key], words, panel)

    return [draw(key) for key in ("gold", "judge", "reward") if inputs.known(key)]


def overoptimisation(curve: Curve) -> list[Panel]:
    """Reward, judge and, where known, true quality in one panel, and the KL in another, along PPO's rollouts."""
    if not curve:
        return []
    has_gold = bool(_column(curve, "gold")[1])

    def scores(axes: Axes) -> None:
        for key in ("reward", "judge"):
            _band(axes, curve, key)
        axes.set(xlabel="rollout", ylabel="reward and judge (standard deviations)")
        if has_gold:
            right = axes.twinx()
            _band(right, curve, "gold")
            right.set(ylabel=AXES["gold"], ylim=(0, 1))
            right.spines["right"].set_visible(True)
            right.grid(visible=False)

    def kl(axes: Axes) -> None:
        _band(axes, curve, "kl")
        axes.set(xlabel="rollout", ylabel=AXES["kl"])

    title = "Reward, judge and true quality" if has_gold else "Reward and judge"
    words = "By rollout of PPO, on the validation prompts; the band is one standard error."
    right_axis = " True quality is on the right axis." if has_gold else ""
    return [
        Panel("overoptimisation", title, words + right_axis, scores, DOUBLE),
        Panel("overoptimisation-kl", TITLES["kl"], words, kl, DOUBLE),
    ]


def _band(axes: Axes, curve: Curve, key: str) -> None:
    x, y = _column(curve, key)
    errors = [error(row, key) for row in curve if row.get(key) is not None]
    colour = COLOURS[key if key in MARKERS else "ink"]
    axes.plot(x, y, color=colour, marker=MARKERS.get(key, "."), markersize=3.5, label=RUN_LABELS.get(key))
    low, high = ([v + s * e for v, e in zip(y, errors, strict=True)] for s in (-1, 1))
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


CURVES = [
    ("SFT: loss", "nats per token", "sft", "loss", "eval_loss"),
    ("Reward model: loss", "loss", "reward", "loss", "eval_loss"),
    ("Reward model: accuracy", "share of pairs", "reward", "accuracy", "eval_accuracy"),
    ("Judge: loss", "loss", "judge", "loss", "eval_loss"),
    ("Judge: accuracy", "share of pairs", "judge", "accuracy", "eval_accuracy"),
    ("DPO: loss", "loss", "dpo", "loss", "eval_loss"),
    ("DPO: margin of the implicit reward", "nats × beta", "dpo", "rewards/margins", "eval_rewards/margins"),
    ("PPO: reward", "standard deviations", "ppo", "reward", "eval_reward"),
    ("PPO: KL to SFT", "nats per response", "ppo", "kl", "eval_kl"),
    ("PPO: entropy", "nats per token", "ppo", "entropy", None),
    ("PPO: tokens of a response", "tokens", "ppo", "length", "eval_length"),
    ("RFT: loss", "nats per token", "rft", "loss", "eval_loss"),
    ("Random RFT: loss", "nats per token", "rft_random", "loss", "eval_loss"),
    ("KTO: loss", "loss", "kto", "loss", "eval_loss"),
    ("KTO: margin of the implicit reward", "nats × beta", "kto", "rewards/margins", "eval_rewards/margins"),
]


def curves(inputs: Inputs) -> list[Panel]:
    """Training (line) and validation (dots) by optimizer step, of each stage that has been run."""
    return [panel for entry in CURVES if (panel := _curve(inputs, *entry))]


def _curve(inputs: Inputs, title: str, unit: str, stage: str, train: str, validation: str | None) -> Panel | None:
    lines = _column(inputs.curves[stage, "train"], train)
    dots = _column(inputs.curves[stage, "eval"], validation) if validation else ([], [])
    if not lines[0] and not dots[0]:
        return None

    def panel(axes: Axes) -> None:
        axes.plot(*_thinned(*lines), color=COLOURS[stage if stage in LABELS else "best_of_n"], lw=1, label="training")
        axes.plot(*_thinned(*dots), "o", color=COLOURS["ink"], ms=3, label="validation")
        axes.set(xlabel="optimizer step", ylabel=unit)

    return Panel(f"curve-{stage}-{train}", title, "By optimizer step: training as a line, validation as dots.", panel)


def _column(curve: Curve, key: str) -> tuple[list[float], list[float]]:
    """The steps (or rollouts) and the values of a column, without the rows that lack it."""
    first = "step" if curve and "step" in curve[0] else "rollout"
    points = [(row[first], row[key]) for row in curve if row.get(key) is not None]
    return [x for x, _ in points if x is not None], [y for _, y in points if y is not None]


def _thinned(x: list[float], y: list[float]) -> tuple[list[float], list[float]]:
    every = math.ceil(len(x) / MOST_POINTS) or 1
    return x[::every], y[::every]


def distributions(inputs: Inputs) -> list[Panel]:
    """How length, KL, judge and true quality of single responses spread in the headline mode."""

    def draw(key: str, values: Mapping[str, list[float]], title: str) -> Panel:
        def panel(axes: Axes) -> None:
            edges = _edges([value for drawn in values.values() for value in drawn], whole=key == "length")
            for policy, drawn in values.items():
                shares = [1 / len(drawn)] * len(drawn)
                inside = [min(max(value, edges[0]), edges[-1]) for value in drawn]
                axes.hist(inside, edges, weights=shares, histtype="step", color=COLOURS[policy], label=LABELS[policy])
            axes.set(xlabel=AXES[key], ylabel="share of the responses")

        words = "Share of the responses by value, a line a policy."
        return Panel(f"distribution-{key}", title, words, panel, NARROW)

    panels = []
    for key, title in (
        ("length", "Length"),
        ("kl", "KL of single responses"),
        ("judge", "Judge"),
        ("gold", "True quality"),
    ):
        found = {policy: _values(inputs, policy, key) for policy in inputs.policies if (policy, key) != ("sft", "kl")}
        found = {policy: drawn for policy, drawn in found.items() if drawn}
        panels += [draw(key, found, title)] if found else []
    return panels


def _values(inputs: Inputs, policy: str, key: str) -> list[float]:
    return [sample[key] for sample in inputs.drawn(policy) if is_number(sample.get(key))]


def _edges(values: Sequence[float], whole: bool, most: int = 30) -> list[float]:
    """Edges of up to `most` equal bins between the 0.5 % and 99.5 % quantiles; for whole numbers, of whole width."""
    ordered = sorted(values)
    low, high = (ordered[round(q * (len(ordered) - 1))] for q in (0.005, 0.995))
    if whole:
        width = max(1, math.ceil((high - low + 1) / most))
        return [low - 0.5 + width * i for i in range(math.ceil((high - low + 1) / width) + 1)]
    high = high if high > low else low + 1
    return [low + (high - low) * i / most for i in range(most + 1)]


def pictures(inputs: Inputs) -> Iterator[tuple[str, list[Panel], int]]:
    """(file name, panels, columns) of each PNG that has something to show."""
    sheets = [
        ("policies.png", policies(inputs), 4),
        ("curves.png", curves(inputs), 3),
        ("overoptimisation.png", overoptimisation(inputs.overoptimisation), 2),
        ("frontier.png", frontier(inputs), 3),
    ]
    yield from ((name, panels, min(columns, len(panels))) for name, panels, columns in sheets if panels)
