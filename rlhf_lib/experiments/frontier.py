"""The reward-KL frontier of a sweep: how far each policy went from the SFT model, and what it gained by that.

    python -m rlhf_lib.experiments.frontier             of the experiments whose names start with sweep-
    python -m rlhf_lib.experiments.frontier FILE        of what `dvc exp show --csv` printed (-: standard input)

One point is one coefficient of one method (ppo.kl_coef, dpo.beta), the mean over its seeds with a standard error in
both directions, as in Rafailov 2023, arXiv:2305.18290, figure 2, and Gao 2022, arXiv:2210.10760. A single seed has no
error bar. Writes frontier.png and frontier.tsv, and prints the table.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rlhf_lib.common import left_out, paths
from rlhf_lib.common.files import write_curve
from rlhf_lib.common.policies import COEFFICIENTS, METHODS, POLICIES
from rlhf_lib.common.schema import read as read_params
from rlhf_lib.evaluation.params import EvaluateParams
from rlhf_lib.evaluation.samples import mode_name
from rlhf_lib.experiments.__main__ import (
    CsvRow,
    coefficient,
    column,
    is_experiment,
    name,
    number,
    param_columns,
    read,
    seed,
    unfinished,
)
from rlhf_lib.report import attainable, inputs
from rlhf_lib.report.drawing import COLOURS, MARKERS, Panel, png
from rlhf_lib.report.inputs import Inputs
from rlhf_lib.report.tables import markdown_table

VARIED = {"policy", *(f"methods.{method}" for method in METHODS)}
VARIED |= {column(method, key) for method, name in COEFFICIENTS.items() for key in (name, "seed")}
VALUES = {
    "reward": "Reward (standard deviations)",
    "judge": "Judge (standard deviations)",
    "gold": "True quality (0 to 1)",
}
LABELS = {
    "sft": POLICIES["sft"].label,
    **{name: f"{METHODS[name].label} ({coefficient})" for name, coefficient in COEFFICIENTS.items()},
    "best_of_n": "best of n (KL at most)",
}


@dataclass(frozen=True)
class Point:
    """One coefficient of one method; `measured` has, for kl and each value, mean and standard error over the seeds."""

    method: str  # a policy, or best_of_n
    coefficient: float | None  # kl_coef, beta, or n
    seeds: int | None
    measured: Mapping[str, tuple[float, float | None]]


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and its standard error where there are two values or more."""
    return fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def choose(rows: Sequence[CsvRow], prefix: str, params: Sequence[str]) -> tuple[list[CsvRow], dict[str, list[str]]]:
    """The experiments of a sweep, and the names of the others by why they were left out.

    `params` are the columns that hold params: those of an experiment must be the commit's, but for `VARIED`.
    """
    chosen: dict[tuple[str, float | None, str], CsvRow] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    commits = [row for row in rows if not is_experiment(row) and row["rev"] != "workspace"]
    commit = first = commits[0] if commits else {}
    for row in rows:
        if not is_experiment(row):
            commit = row if row["rev"] != "workspace" else commit
            continue
        key = (row["policy"], coefficient(row), seed(row))
        reason = "it starts from another commit" if commit is not first else _fault(row, first, prefix, params)
        if reason is None and key in chosen:
            reason = f"the same run as {name(chosen[key])}"
        if reason is None:
            chosen[key] = row
        else:
            left_out[reason].append(name(row))
    return list(chosen.values()), left_out


def _fault(row: CsvRow, commit: CsvRow, prefix: str, params: Sequence[str]) -> str | None:
    if not name(row).startswith(prefix):
        return f"name does not start with {prefix}"
    if state := unfinished(row):
        return state
    if coefficient(row) is None or not seed(row):
        return f"policy {row['policy'] or 'unknown'} has no coefficient and seed"
    if number(row, "eval.kl") is None or number(row, "eval.reward") is None:
        return "it has no eval.kl and eval.reward"
    if other := [key for key in params if key not in VARIED and row.get(key) != commit.get(key)]:
        return f"other params than the commit's: {', '.join(other)}"
    return None


def points(rows: Sequence[CsvRow]) -> list[Point]:
    """A point for each method and coefficient, in rising order. A value that one of the seeds lacks is left out."""
    groups: dict[tuple[str, float], list[CsvRow]] = defaultdict(list)
    for row in rows:
        groups[row["policy"], coefficient(row) or 0.0].append(row)
    return [Point(*key, len(group), _measured(group)) for key, group in sorted(groups.items(), key=_order)]


def _order(item: tuple[tuple[str, float], Any]) -> tuple[int, float]:
    (method, value), _ = item
    return list(COEFFICIENTS).index(method), value


def _measured(group: Sequence[CsvRow]) -> dict[str, tuple[float, float | None]]:
    measured = {}
    for key in ("kl", *VALUES):
        values = [x for row in group if (x := number(row, f"eval.{key}")) is not None]
        if len(values) == len(group):
            measured[key] = mean_and_error(values)
    return measured


def landmarks(mode: str) -> Iterator[Point]:
    """The SFT model, and the best of n of its answers, from metrics/eval, where they are. They have one seed.

    The KL of the best of n is at most log n - (n - 1) / n [Beirami 2024, arXiv:2401.01879].
    """
    if sft := _metrics("sft").get(mode):
        yield Point("sft", None, None, {"kl": (0.0, None)} | {k: (sft[k], None) for k in VALUES if k in sft})
    for best in sorted(_metrics("best_of_n").values(), key=lambda best: best["n"]):
        values = {key: (best[key], None) for key in VALUES if key in best}
        yield Point("best_of_n", best["n"], None, {"kl": (best["kl_bound"], None)} | values)


def _metrics(policy: str) -> dict[str, Any]:
    file = Path(paths.evaluation(policy))
    there = file.is_file() and not left_out.reason(file)
    return json.loads(file.read_text(encoding="utf-8")) if there else {}


def table(found: Sequence[Point]) -> list[dict[str, Any]]:
    """One row a point: method, coefficient, seeds, and kl and the values, each with its _se."""
    rows = []
    for point in found:
        row: dict[str, Any] = {"method": point.method, "coefficient": point.coefficient, "seeds": point.seeds}
        for key in ("kl", *VALUES):
            row[key], row[f"{key}_se"] = point.measured.get(key, (None, None))
        rows.append(row)
    return rows


def markdown(found: Sequence[Point]) -> str:
    """The table to read; ± is one standard error over the seeds."""
    keys = [key for key in ("kl", *VALUES) if any(key in point.measured for point in found)]
    lines = []
    for point in found:
        value = "" if point.coefficient is None else f"{point.coefficient:g}"
        cells = [_cell(*point.measured[key]) if key in point.measured else "" for key in keys]
        lines.append([LABELS[point.method], value, str(point.seeds or ""), *cells])
    return markdown_table(["method", "coefficient", "seeds", *keys], lines)


def _cell(mean: float, error: float | None) -> str:
    return f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"


def draw(found: Sequence[Point], path: Path) -> None:
    """A panel for each value that is known, against KL, as a PNG; with what any policy could reach if that is known."""
    keys = [key for key in VALUES if any(key in point.measured for point in found)]
    attained = inputs.load() if Path(paths.ATTAINABLE_CURVE).is_file() else None
    panels = [
        Panel(key, title, "against KL", partial(_draw_panel, found, attained, key)) for key, title in VALUES.items()
    ]
    png([panel for panel in panels if panel.name in keys], len(keys), path)


def _draw_panel(found: Sequence[Point], attained: Inputs | None, key: str, ax: Any) -> None:
    if attained:
        attainable.draw(ax, attained, key, max(point.measured["kl"][0] for point in found))
    for method in LABELS:
        if drawn := [p for p in found if p.method == method and key in p.measured]:
            _draw_method(drawn, key, ax)
    ax.set_xlabel("KL to SFT (nats per response)")


def _draw_method(drawn: Sequence[Point], key: str, ax: Any) -> None:
    """Points of one method, joined in the order of their coefficients."""
    method = drawn[0].method
    x, x_error = _columns(drawn, "kl")
    y, y_error = _columns(drawn, key)
    style = {"marker": MARKERS[method], "ms": 4, "ls": "--" if method == "best_of_n" else "-", "color": COLOURS[method]}
    ax.errorbar(x, y, y_error, x_error, elinewidth=0.8, label=LABELS[method], **style)
    for point, at in zip(drawn, zip(x, y, strict=True), strict=True):
        if point.coefficient is not None:
            label = f"{point.coefficient:g}"
            ax.annotate(label, at, xytext=(4, -9), textcoords="offset points", fontsize=7, color=COLOURS[method])


def _columns(drawn: Sequence[Point], key: str) -> tuple[list[float], list[float]]:
    """Means and errors of points; NaN, which is not drawn, where there is no error."""
    pairs = [point.measured[key] for point in drawn]
    return [mean for mean, _ in pairs], [math.nan if error is None else error for _, error in pairs]


def main() -> None:
    """Draw the frontier of the experiments."""
    parser = argparse.ArgumentParser(
        prog="python -m rlhf_lib.experiments.frontier", description=__doc__.split("\n", 1)[0]
    )
    parser.add_argument("file", nargs="?", help="a saved table; -: standard input; none: dvc exp show --csv is run")
    parser.add_argument("--prefix", default="sweep-", help="how the names of the sweep's experiments start")
    parser.add_argument("--out", type=Path, default=Path("dvc_plots"), help="the folder to write into")
    arguments = parser.parse_args()
    mode = mode_name(read_params("evaluate", EvaluateParams).temperatures[0])
    rows, left_out = choose(read(arguments.file), arguments.prefix, param_columns())
    for reason, names in left_out.items():
        print(f"left out: {', '.join(names)}: {reason}", file=sys.stderr)
    if not rows:
        raise SystemExit(
            f"no finished experiment of a sweep (their names start with {arguments.prefix}); make sweep runs one"
        )
    found = [*points(rows), *landmarks(mode)]
    draw(found, arguments.out / "frontier.png")
    write_curve(arguments.out / "frontier.tsv", table(found))
    print(markdown(found))
    print(f"\nThe picture: {arguments.out / 'frontier.png'}; the table: {arguments.out / 'frontier.tsv'}")


if __name__ == "__main__":
    main()
