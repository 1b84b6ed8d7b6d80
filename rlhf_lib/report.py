"""The comparison as a Markdown page and pictures, from the files that the other stages wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lib.params.schema import POLICIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Colours that people with any colour vision tell apart (Okabe and Ito), one for a policy wherever it is drawn.
COLOURS = {"sft": "#7f7f7f", "ppo": "#d55e00", "dpo": "#0072b2"}

Metrics = Mapping[str, Any]


def load_evaluations() -> dict[str, Metrics]:
    """metrics/eval/<policy>.json of each policy."""
    return {p: json.loads(Path(f"metrics/eval/{p}.json").read_text(encoding="utf-8")) for p in POLICIES}


def modes(evaluations: Mapping[str, Metrics]) -> list[str]:
    """The sampling modes of the evaluations, hottest first and greedy last."""
    names = [name for name, value in evaluations["sft"].items() if isinstance(value, dict)]
    return sorted(names, key=lambda name: -_temperature(name))


def _temperature(mode: str) -> float:
    return 0.0 if mode == "greedy" else float(mode[1:].replace("_", "."))


def mode_label(mode: str) -> str:
    return mode if mode == "greedy" else f"T={_temperature(mode):g}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up as plain text."""
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines
    )


def policy_table(evaluations: Mapping[str, Metrics]) -> str:
    """One row a policy and sampling mode; ± is one standard error over prompts."""
    has_gold = "gold" in evaluations["sft"][modes(evaluations)[0]]
    header = ["policy", "sampling", "reward", "wins over SFT", "KL to SFT", "tokens", "EOS", "distinct-2"]
    header += ["true quality", "gain over SFT"] if has_gold else []
    rows = []
    for mode in modes(evaluations):
        for policy in POLICIES:
            measured = evaluations[policy][mode]
            row = [policy.upper(), mode_label(mode), _with_se(measured, "reward", 2), _with_se(measured, "win_rate", 2)]
            row += [
                _with_se(measured, "kl", 2),
                f"{measured['length']:.1f}",
                f"{measured['eos_rate']:.3f}",
                f"{measured['distinct_2']:.2f}",
            ]
            row += [_with_se(measured, "gold", 3), _with_se(measured, "gold_gain", 3, sign="+")] if has_gold else []
            rows.append(row)
    return markdown_table(header, rows)


def _with_se(measured: Metrics, key: str, digits: int, sign: str = "") -> str:
    return f"{measured[key]:{sign}.{digits}f} ± {measured[key + '_se']:.{digits}f}"


def format_table(evaluations: Mapping[str, Metrics]) -> str:
    """True quality by the form of answer asked for: a row a form, a column a policy and mode."""
    columns = [(policy, mode) for mode in modes(evaluations) for policy in POLICIES]
    header = ["answer format", *(f"{policy.upper()} {mode_label(mode)}" for policy, mode in columns)]
    formats = evaluations["sft"][columns[0][1]]["gold_by_format"]
    rows = [
        [name, *(f"{evaluations[policy][mode]['gold_by_format'][name]:.2f}" for policy, mode in columns)]
        for name in formats
    ]
    return markdown_table(header, rows)


def page(evaluations: Mapping[str, Metrics], reward: Metrics) -> str:
    """The whole report as Markdown."""
    parts = [
        "# SFT, PPO and DPO on the same held-out prompts",
        policy_table(evaluations),
        "± is one standard error over prompts. Reward is in standard deviations of the reward model's scores; "
        "KL is in nats a response, at the sampling temperature (greedy: at 1); wins and gains are paired by prompt.",
        "## The reward model on held-out pairs",
        _reward_line(reward),
        "## Preference accuracy of the policies' implicit rewards",
        ", ".join(f"{p.upper()} {evaluations[p]['preference_accuracy']:.3f}" for p in POLICIES)
        + " (SFT is 0.5 by definition)",
    ]
    if "gold" in evaluations["sft"][modes(evaluations)[0]]:
        parts += ["## True quality by answer format", format_table(evaluations)]
    parts += ["## Curves", "![the policies](policies.png)", "![training curves](curves.png)"]
    return "\n\n".join(parts) + "\n"


def _reward_line(reward: Metrics) -> str:
    line = f"It orders {reward['accuracy']:.1%} of {reward['pairs']} pairs as their scores do"
    if reward.get("gold_accuracy") is not None:
        line += f", and {reward['gold_accuracy']:.1%} of {reward['gold_pairs']} as their true quality does"
    return line + "."


def read_curve(path: str | Path, x: str, y: str) -> tuple[list[float], list[float]]:
    """Columns `x` and `y` of a TSV file, without the rows that lack either."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row[x] and row[y]]
    return [float(row[x]) for row in rows], [float(row[y]) for row in rows]


CURVES = [
    ("SFT: loss (nats a token)", "sft", "loss", "eval_loss"),
    ("Reward model: loss", "reward", "loss", "eval_loss"),
    ("Reward model: accuracy", "reward", "accuracy", "eval_accuracy"),
    ("DPO: margin of the implicit reward", "dpo", "rewards/margins", "eval_rewards/margins"),
    ("PPO: reward", "ppo", "reward", "eval_reward"),
    ("PPO: KL to SFT (nats a response)", "ppo", "kl", "eval_kl"),
]


def draw_curves(path: str | Path) -> None:
    """Training (line) and validation (dots) curves of each stage by optimizer step, as a PNG."""
    figure, axes = _figure(2, 3)
    for ax, (title, stage, train, validation) in zip(axes, CURVES, strict=True):
        colour = COLOURS.get(stage, "#009e73")
        ax.plot(*read_curve(f"metrics/{stage}/train.tsv", "step", train), color=colour, lw=1, label="training")
        ax.plot(
            *read_curve(f"metrics/{stage}/eval.tsv", "step", validation), "o", color="black", ms=4, label="validation"
        )
        ax.set(title=title, xlabel="optimizer step")
    axes[0].legend(frameon=False)
    _save(figure, path)


def draw_policies(evaluations: Mapping[str, Metrics], path: str | Path) -> None:
    """Reward, KL and, where it is known, true quality of each policy by sampling mode, as a PNG."""
    names = modes(evaluations)
    panels = [("gold", "True quality (0 to 1)")] if "gold" in evaluations["sft"][names[0]] else []
    panels += [("reward", "Reward (standard deviations)"), ("kl", "KL to SFT (nats a response)")]
    figure, axes = _figure(1, len(panels))
    for ax, (key, title) in zip(axes, panels, strict=True):
        _bars(ax, evaluations, names, key)
        ax.set(title=title)
    axes[0].legend(frameon=False)
    _save(figure, path)


def _bars(ax: Axes, evaluations: Mapping[str, Metrics], names: Sequence[str], key: str) -> None:
    for offset, policy in enumerate(POLICIES):
        places = [i + 0.27 * (offset - 1) for i in range(len(names))]
        heights = [evaluations[policy][name][key] for name in names]
        errors = [evaluations[policy][name][f"{key}_se"] for name in names]
        ax.bar(places, heights, 0.25, yerr=errors, capsize=2, color=COLOURS[policy], label=policy.upper())
    ax.set_xticks(range(len(names)), [mode_label(name) for name in names])


def _figure(rows: int, columns: int) -> tuple[Any, list[Any]]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", alpha=0.3)
    return figure, list(axes.flat)


def _save(figure: Any, path: str | Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
