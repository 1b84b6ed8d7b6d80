"""Draw PPO runs from DVC experiments: `python docs/plot_ppo_runs.py NAME...` writes dvc_plots/ppo/<NAME>.png.

`--out docs/ppo` replaces the pictures of docs/reading-ppo-curves.md.

The experiments of docs/reading-ppo-curves.md log the demo's true quality as a reward of weight 0.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
from pathlib import Path

import dvc.api
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

COLOURS = {"reward": "#0072b2", "true quality": "#d55e00", "grey": "#7f7f7f"}
Curve = list[dict[str, float]]


def read_curve(name: str, half: str) -> Curve:
    """metrics/ppo/<half>.tsv of an experiment."""
    text = dvc.api.read(f"metrics/ppo/{half}.tsv", rev=name)
    rows = csv.DictReader(io.StringIO(text), delimiter="\t")
    return [{key: float(value) for key, value in row.items() if value} for row in rows]


def draw(axes: Axes, x: list[float], curve: Curve, key: str, label: str, colour: str) -> None:
    axes.plot(x, [row.get(key, math.nan) for row in curve], color=colour, linewidth=1.6)  # without a critic, less
    axes.set_title(label, loc="left", fontsize=10)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def plot(name: str, path: Path) -> None:
    """Six panels: what the run is for above, how it gets there below."""
    train, evaluations = read_curve(name, "train"), read_curve(name, "eval")
    rollouts = [row["rollout"] for row in train]
    last = rollouts[-1]
    evaluated = [last * row["step"] / train[-1]["step"] for row in evaluations]
    figure, grid = plt.subplots(2, 3, figsize=(11, 5.2), sharex=True, layout="constrained")
    grey, blue, red = COLOURS["grey"], COLOURS["reward"], COLOURS["true quality"]
    draw(grid[0, 0], evaluated, evaluations, "eval_reward", "reward on validation prompts (std)", blue)
    draw(grid[0, 1], evaluated, evaluations, "eval_rewards/demo_gold", "true quality on validation prompts", red)
    grid[0, 1].set_ylim(0, 1)
    draw(grid[0, 2], rollouts, train, "kl", "KL to the reference (nats per response)", grey)
    draw(grid[1, 0], rollouts, train, "explained_variance", "critic: explained variance", grey)
    grid[1, 0].set_ylim(-1, 1)
    draw(grid[1, 1], rollouts, train, "entropy", "entropy (nats per token)", grey)
    draw(grid[1, 2], rollouts, train, "clip_fraction", "share of clipped tokens", grey)
    for axes in grid[1]:
        axes.set_xlabel("rollouts")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="+", metavar="NAME", help="a DVC experiment")
    parser.add_argument("--out", type=Path, default=Path("dvc_plots/ppo"), help="the folder of the pictures")
    arguments = parser.parse_args()
    plt.switch_backend("agg")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names:
        path = arguments.out / f"{name}.png"
        plot(name, path)
        print(path)


if __name__ == "__main__":
    main()
