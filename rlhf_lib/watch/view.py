"""What is shown of the stages that run, and of the last ones where none does, as lines of text."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf_lib.watch.drawing import BLOCKS, bar, chart, duration, number, size, spark
from rlhf_lib.watch.found import Curve, Stage, gpus

WIDEST, HEIGHT = 100, 6  # columns of all, lines of the chart
SPARK, LABEL = 30, 26  # columns
SHOWN = (
    *("reward", "kl", "loss", "rewards/margins", "rewards/accuracies", "accuracy", "mean_token_accuracy", "entropy"),
    *("length", "eos_rate", "clip_fraction", "explained_variance", "grad_norm", "learning_rate"),
)
VALIDATED = SHOWN[: SHOWN.index("clip_fraction")]
PHASES = {"training": "training", "validating": "validating", "trained": "trained; its outs are measured and written"}


def view(found: Sequence[Stage], root: Path, width: int, signs: str = BLOCKS) -> list[str]:
    """The lines of all: a block for each stage that runs, then what ended last.

    found: the latest first. width: in columns, as many as the terminal has. signs: those of the curves.
    """
    width, lines = min(width, WIDEST), []
    running = [stage for stage in found if stage.runs]
    for stage in running:
        lines += [*_block(stage, root, width, signs), ""]
    if running:
        lines += [*gpus()]
    else:
        lines.append("no stage runs; this waits for one")
    ended = [stage for stage in found if not stage.runs and stage.folder == root][:3]
    lines += [f"{'before' if running or i else 'last'}: {_ended(stage)}" for i, stage in enumerate(ended)]
    return [line[:width] for line in lines]


def _ended(stage: Stage) -> str:
    ago = duration(time.time() - stage.at)
    if stage.end is None:
        return f"{stage.name}, begun {ago} ago, ended without a word (killed?)"
    how, seconds = stage.end
    return f"{stage.name}, {how} {ago} ago after {duration(seconds)}"


def _block(stage: Stage, root: Path, width: int, signs: str) -> Iterator[str]:
    status, place = stage.status(), ""
    if name := stage.experiment():
        place = f" of experiment {name}"
    elif stage.folder != root:
        place = f" in {stage.folder.relative_to(root)}"
    phase = PHASES.get(status.get("phase", ""), "at work")  # one that does not train has no status
    yield " · ".join([f"{stage.name}{place}", phase, duration(time.time() - stage.at), size(stage.memory())])
    if not status:
        return
    yield from _progress(status, width, signs)
    train, validation = stage.curve("train"), stage.curve("eval")
    yield from _rows("training", train, SHOWN, signs)
    yield from _rows("validation", validation, [f"eval_{name}" for name in VALIDATED], signs)
    yield from _chart(train, width, signs)


def _progress(status: Mapping[str, Any], width: int, signs: str) -> Iterator[str]:
    """How far, how fast, how long to go: a bar, and the numbers."""
    unit, done, total = status["unit"], status["done"], max(status["total"], 1)
    told = [f"{unit} {done:,} of {total:,}"]
    if status.get("epoch") is not None:
        of = f" of {status['epochs']:g}" if status.get("epochs") else ""
        told.append(f"epoch {status['epoch']:.2f}{of}")
    if each := status.get("seconds_each"):
        told.append(f"{1 / each:.3g} {unit}s/s" if each < 1 else f"{each:.3g} s/{unit}")
    if speed := status.get("tokens_per_second"):
        told.append(f"{speed:,.0f} tokens/s")
    if done < total and status["phase"] == "trained":
        told.append("stopped early")
    elif each and done < total:
        left = (total - done) * each - (time.time() - status["written"])
        told.append(f"{duration(left)} left")
    yield f"{bar(done / total, width - 6, signs)} {100 * done // total:3d} %"
    yield " · ".join(told)


def _rows(title: str, curve: Curve, columns: Sequence[str], signs: str) -> Iterator[str]:
    """A line for each of the columns that the curve has: its last value, its course, its range."""
    steps = curve.get("step")
    if not steps:
        return
    yield ""
    yield f"{title}, to step {steps[-1]:.0f}"
    for name in columns:
        values = [value for value in curve.get(name, ()) if math.isfinite(value)]
        if values:
            course = spark(values, SPARK, signs)
            span = f"{number(min(values))} to {number(max(values))}"
            yield f"  {name:<{LABEL}}{number(values[-1]):>10}  {course:<{SPARK}}  {span}"


def _chart(curve: Curve, width: int, signs: str) -> Iterator[str]:
    """The reward of PPO, the loss of the others, once there are a few points."""
    name = next((name for name in ("reward", "loss") if name in curve), None)
    values = [value for value in curve.get(name or "", ()) if math.isfinite(value)]
    if len(values) < 3:
        return
    labels = [number(max(values)), *[""] * (HEIGHT - 2), number(min(values))]
    yield ""
    yield f"{name} by step"
    for label, line in zip(labels, chart(values, max(width - 11, 1), HEIGHT, signs), strict=True):
        yield f"{label:>10} {line}"
