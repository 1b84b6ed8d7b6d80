"""Draw the share of right answers over PPO: `python docs/plot_exact.py NAME...` writes dvc_plots/exact.png.

`--out docs/ppo/exact.png` replaces the picture of docs/rewards.md. The names are those of DVC experiments of the preset
arithmetic, one for each seed: the reward there is 1 for a right answer, else 0, so that its mean is the share.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from plot_ppo_runs import COLOURS, read_curve

MODES = {"eval_reward": ("sampled at temperature 1", "reward"), "eval_greedy_reward": ("greedy", "true quality")}


def plot(names: list[str], path: Path) -> None:
    """The share on the validation prompts, a line for each seed and way to sample."""
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for name in names:
        train, evaluations = read_curve(name, "train"), read_curve(name, "eval")
        rollouts = [train[-1]["rollout"] * row["step"] / train[-1]["step"] for row in evaluations]
        for key, (label, colour) in MODES.items():
            shares = [row[key] for row in evaluations]
            axes.plot(rollouts, shares, color=COLOURS[colour], linewidth=1.6, label=label if name == names[0] else None)
    axes.set_title("share of right answers to validation prompts, one line a seed", loc="left", fontsize=10)
    axes.set_xlabel("rollouts")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="+", metavar="NAME", help="a DVC experiment")
    parser.add_argument("--out", type=Path, default=Path("dvc_plots/exact.png"), help="the picture")
    arguments = parser.parse_args()
    plt.switch_backend("agg")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    plot(arguments.names, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
