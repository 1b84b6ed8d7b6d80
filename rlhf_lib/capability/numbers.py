"""Numbers with standard errors from what lm-evaluation-harness says of every document, and differences paired by it.

Its metrics are means, or functions of a ratio of two sums over the documents, as perplexities are. All of them have the
error of `rlhf_lib.measure.estimates`; so has a difference, for which both models' values of a document belong together.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlhf_lib.measure.estimates import Estimate, of_sums

Row = Mapping[str, Any]  # what is said of a document: doc_id, doc_hash, filter, and the metrics' values
Part = tuple[float, float]  # a document's value and its weight
Transform = Callable[[float], float]
Entries = Mapping[str, Mapping[str, Any]]  # by task
OF_ONE = ("fresh", "model_md5", "paired", "rows_md5")

# What a metric makes of sum(values) / sum(weights); the last two have log-likelihoods, in nats, as values.
TRANSFORMS: tuple[Transform, ...] = (
    lambda ratio: ratio,
    lambda ratio: math.exp(-ratio) if ratio > -700 else math.inf,
    lambda ratio: -ratio / math.log(2),
)


def part(value: Any) -> Part | None:
    """A document's value and weight: of a number (value, 1), of two as they are; None for all else."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value, 1.0)
    is_pair = len(pair) == 2 and all(isinstance(number, int | float) and math.isfinite(number) for number in pair)
    return (float(pair[0]), float(pair[1])) if is_pair else None


def parts(rows: Sequence[Row], name: str) -> list[Part]:
    """The parts of a metric in the order of the rows; none where one of its values is no number.

    name: as `metric_name` makes it.
    """
    metric, _, chosen = name.partition(",")
    found = [part(row[metric]) for row in rows if metric in row and row.get("filter") == (chosen or "none")]
    return [value for value in found if value is not None] if None not in found else []


def transform_of(found: Sequence[Part], aggregate: float) -> Transform | None:
    """That of `TRANSFORMS` by which the parts give the library's number, kept to six digits; None where none does."""
    weight = sum(w for _, w in found)
    if not weight:
        return None
    ratio = sum(v for v, _ in found) / weight
    return next((f for f in TRANSFORMS if math.isclose(f(ratio), aggregate, rel_tol=1e-5, abs_tol=1e-12)), None)


def estimate(found: Sequence[Part], transform: Transform) -> Estimate:
    """The metric and its standard error over documents."""
    return of_sums(found, lambda sums: transform(sums[0] / sums[1]) if sums[1] else None)


def difference(one: Sequence[Part], other: Sequence[Part], transform: Transform) -> Estimate:
    """The metric of `one` less that of `other`, and its standard error over documents, which both have alike."""
    pairs = [(*a, *b) for a, b in zip(one, other, strict=True)]

    def statistic(sums: Any) -> float | None:
        return transform(sums[0] / sums[1]) - transform(sums[2] / sums[3]) if sums[1] and sums[3] else None

    return of_sums(pairs, statistic)


def metric_name(key: str) -> str:
    """The library's key of a number, "acc,none", without the filter where that is none."""
    return key.removesuffix(",none")


def documents(rows: Sequence[Row]) -> str:
    """A hash of the documents and their right answers: that of two models is one where both had the same."""
    known = [[row["doc_id"], row.get("doc_hash"), row.get("target_hash")] for row in rows]
    return hashlib.md5(json.dumps(known).encode(), usedforsecurity=False).hexdigest()


def entry(numbers: Mapping[str, Any], rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics/lm_eval.json has of a model in a task: each metric by its name, its error with _se, its settings.

    These are in a list, for `dvc metrics` leaves lists out.

    numbers: what the library has of the task, {"acc,none": ..., "acc_stderr,none": ...}. rows: none of a group's.
    settings: with `higher_is_better`, {metric: whether}.
    """
    made: dict[str, Any] = {}
    higher = {}
    for key, value in numbers.items():
        metric, comma, chosen = key.partition(",")
        if not comma or metric.endswith("_stderr") or part(value) is None:
            continue
        name, own = metric_name(key), numbers.get(f"{metric}_stderr,{chosen}")
        found = parts(rows, name)
        transform = transform_of(found, value)
        se = estimate(found, transform)[1] if transform else own if isinstance(own, int | float) else None
        made |= {name: float(value), f"{name}_se": se}
        higher[name] = settings["higher_is_better"].get(metric) is not False
    return {**made, "about": [{**settings, "higher_is_better": higher}]}


def about(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry's settings, the hashes of its model and of what was said of the documents, and whether it is paired."""
    return entry["about"][0]


def settings_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same of two entries that are compared."""
    return {key: value for key, value in about(entry).items() if key not in OF_ONE}


def chance(rows: Sequence[Row]) -> float:
    """The accuracy of a guess: the mean of 1 / choices over documents. rows: with `resps`, a pair a choice."""
    return sum(1 / len(row["resps"]) for row in rows) / len(rows)


def compared(
    entries: Mapping[str, Entries], baseline: str, others: Entries, rows: Callable[[str, str], Sequence[Row]]
) -> dict[str, Any]:
    """The entries by model, with each one's difference from the baseline's as `<metric>_diff` and `<metric>_diff_se`.

    others: those of the baseline's entries that the rest may be compared with. rows: a function from model and task to
    what is said of each document, none where that is not there. Where both have theirs, the difference is paired, else
    its error is as of independent documents, which is too large if anything. No difference where the settings, or the
    documents, are not the same.
    """
    return {
        model: {task: _beside(made, model, task, others, baseline, rows) for task, made in own.items()}
        for model, own in entries.items()
    }


def _beside(
    made: Mapping[str, Any], model: str, task: str, others: Entries, baseline: str, rows: Callable[..., Sequence[Row]]
) -> dict[str, Any]:
    bare = {key: value for key, value in made.items() if not key.endswith(("_diff", "_diff_se"))}
    known, other = {key: value for key, value in about(made).items() if key != "paired"}, others.get(task)
    if model == baseline or other is None or settings_of(made) != settings_of(other):
        return {**bare, "about": [known]}
    mine, theirs = rows(model, task), rows(baseline, task)
    found: dict[str, Any] = {}
    paired = bool(mine and theirs)
    for name in known["higher_is_better"]:
        one, two = parts(mine, name), parts(theirs, name)
        transform = transform_of(one, bare[name]) if len(one) == len(two) else None
        if transform:
            value, se = difference(one, two, transform)
        else:
            paired, errors = False, (bare[f"{name}_se"], other[f"{name}_se"])
            value, se = bare[name] - other[name], None if None in errors else math.hypot(*errors)
        found |= {f"{name}_diff": value, f"{name}_diff_se": se}
    return {**bare, **found, "about": [{**known, "paired": paired}]}
