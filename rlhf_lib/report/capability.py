"""What lm-evaluation-harness says of the policies, and in words what alignment cost of what the SFT model could do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rlhf_lib.capability.numbers import about, settings_of
from rlhf_lib.common import paths
from rlhf_lib.common.few import few
from rlhf_lib.common.policies import LABELS
from rlhf_lib.report.columns import Column
from rlhf_lib.report.differences import Difference, number
from rlhf_lib.report.holm import holm, two_sided
from rlhf_lib.report.inputs import Inputs, Metrics, is_number
from rlhf_lib.report.tables import MISSING, Table, cell, markdown_table, table

DIGITS = 3
MOST = 6  # numbers that a sentence lists
P = 0.05  # below which, corrected for all that is compared of a policy, a difference is decided
BASE, SFT = "base", "sft"
SHOWN = {BASE: "before training", **LABELS}
NAMES = {paths.model(name): label for name, label in SHOWN.items()}  # by model
ACCURACIES = ("acc", "acc_norm")  # whose chance is known
Known = Mapping[str, Mapping[str, Metrics]]  # by base or policy, or by model; then by what was asked


class Change(NamedTuple):
    """A metric of a model in a task less the SFT model's, and whether more of it is better."""

    name: str
    found: Difference
    higher_is_better: bool
    documents: int

    @property
    def is_cost(self) -> bool:
        """Whether it is for the worse, clear or not."""
        return bool(self.found.value < 0) == self.higher_is_better

    def __str__(self) -> str:
        value, se = self.found
        if se is None:
            return f"{self.name} {number(value, DIGITS, '+')}{few(self.documents)}"
        # an end that rounds to 0 keeps its sign, which says on which side of 0 it is
        low, high = (f"{value + side * 2 * se:+.{DIGITS}f}".replace("-", "−") for side in (-1, 1))
        return f"{self.name} {number(value, DIGITS, '+')} ({low} to {high}){few(self.documents)}"


def by_model(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """What is known of this run's models, by base or policy and by what was asked: where dvc.lock has the model that
    was measured."""
    hashes = {path: md5 for _, path, md5 in inputs.hashes}
    found = {}
    for name in SHOWN:
        model = paths.model(name)
        entries = inputs.lm_eval.get(model, {}).items()
        if kept := {task: entry for task, entry in entries if about(entry)["model_md5"] == hashes.get(model, "")}:
            found[name] = kept
    return found


def stale(inputs: Inputs) -> str:
    """A sentence on the models whose numbers are of another one than this run's; empty where there are none."""
    known = by_model(inputs)
    old = [SHOWN[p] for p in SHOWN if inputs.lm_eval.get(paths.model(p), {}).keys() - known.get(p, {}).keys()]
    return f"Measured before the model was trained anew, and left out here: {', '.join(old)}." if old else ""


def changes(entries: Mapping[str, Metrics]) -> Iterator[tuple[str, str, Change]]:
    """(asked, metric, change) of a model's differences from the SFT model, of tasks in no group here."""
    for task, entry in entries.items():
        settings = about(entry)
        if settings.get("part_of") in entries:
            continue
        for metric, higher in settings["higher_is_better"].items():
            if is_number(value := entry.get(f"{metric}_diff")):
                found = Difference(value, entry.get(f"{metric}_diff_se"))
                yield task, metric, Change(f"{task} {metric}", found, higher, settings["n"])


def cannot(metric: str, sft: Metrics, base: Metrics) -> str:
    """Than what the SFT model is not clearly better in a metric, so that there is nothing to lose; else empty.

    sft, base: their entries in a task, empty where there are none. A base that was trained elsewhere may be as good as
    the SFT model, so that only fresh weights are a floor.
    """
    if base and about(base).get("fresh") and is_number(value := base.get(f"{metric}_diff")):
        below = Difference(value, base.get(f"{metric}_diff_se"))
        is_worse = (value < 0) == about(base)["higher_is_better"][metric]
        if below.se is not None and not (below.clear and is_worse):
            return paths.BASE
    chance = about(sft).get("chance") if sft and metric.partition(",")[0] in ACCURACIES else None
    if chance is not None and is_number(sft.get(metric)):
        above = Difference(sft[metric] - chance, sft.get(f"{metric}_se"))
        if above.se is not None and not (above.clear and above.value > 0):
            return "chance"
    return ""


def sentence(
    label: str, entries: Mapping[str, Metrics], sft: Mapping[str, Metrics], base: Mapping[str, Metrics]
) -> str:
    """In what a model is clearly worse than the SFT model, better, or neither, after Holm's correction for all metrics
    that are compared; and what the SFT model cannot do itself. Empty where nothing is known."""
    counted, beyond = [], []
    for task, metric, change in changes(entries):
        floor = cannot(metric, sft.get(task, {}), base.get(task, {}))
        if floor:
            beyond.append(f"{change.name} (no better than {floor})")
        else:
            counted.append(change)
    decided = [p < P for p in holm([two_sided(*change.found) for change in counted])]
    pairs = list(zip(counted, decided, strict=True))
    groups: list[tuple[str, Sequence[Any]]] = [
        ("worse in", [change for change, clear in pairs if clear and change.is_cost]),
        ("better in", [change for change, clear in pairs if clear and not change.is_cost]),
        ("undecided in", [change for change, clear in pairs if not clear]),
        ("SFT cannot do it: left out", beyond),
    ]
    told = "; ".join(f"{what} {_listed(group)}" for what, group in groups if group)
    return f"{label} against SFT: {told}." if told else ""


def _listed(group: Sequence[Any]) -> str:
    more = f" and {len(group) - MOST} more" if len(group) > MOST else ""
    return ", ".join(map(str, group[:MOST])) + more


def _verdicts(known: Known, sft: str, base: str, names: Mapping[str, str]) -> list[str]:
    """A sentence of each model but SFT and base, and what is not compared, or not paired."""
    told = [
        sentence(names.get(name, name), entries, known.get(sft, {}), known.get(base, {}))
        for name, entries in known.items()
        if name not in (sft, base)
    ]
    return [*filter(None, told), *_remarks(known, sft, names)]


def _remarks(known: Known, sft: str, names: Mapping[str, str]) -> Iterator[str]:
    for name, entries in known.items():
        for task, entry in entries.items() if name != sft else ():
            place, other = f"{names.get(name, name)}, {task}", known.get(sft, {}).get(task)
            if about(entry).get("paired") is False:
                yield f"{place}: the errors of differences from SFT are not paired by document."
            elif any(key.endswith("_diff") for key in entry):
                continue
            elif other is None:
                yield f"{place}: not compared with SFT, which was not asked this."
            elif apart := _apart(entry, other):
                yield f"{place}: not compared with SFT, for they differ in {apart}."
            else:
                yield f"{place}: not compared with SFT, which was trained anew since; make lm-eval MODEL={paths.SFT}."


def _apart(entry: Metrics, other: Metrics) -> str:
    one, two = settings_of(entry), settings_of(other)
    return ", ".join(sorted(key for key in {*one, *two} if one.get(key) != two.get(key)))


def sentences(inputs: Inputs) -> list[str]:
    """One of each policy, and then what is not compared."""
    return _verdicts(by_model(inputs), SFT, BASE, SHOWN)


def columns(entries: Sequence[Metrics]) -> list[Column]:
    """Each metric of a task, and its difference from the SFT model."""
    names = {name: higher for entry in entries for name, higher in about(entry)["higher_is_better"].items()}
    return [
        column
        for name, higher in names.items()
        for column in (
            Column(name, f"{name} {'↑' if higher else '↓'}", DIGITS),
            Column(f"{name}_diff", f"{name}: less SFT", DIGITS, "+"),
        )
    ]


def task_tables(inputs: Inputs) -> list[tuple[str, str, Table]]:
    """Of each task its name, how it was asked, and a row a policy; another table where it was asked otherwise."""
    known = by_model(inputs)
    made = []
    for task, asked, entries in _alike(known):
        rows = [(policy if policy in LABELS else "", SHOWN[policy], entry) for policy, entry in entries.items()]
        made.append((task, asked, table(columns(list(entries.values())), [("", rows)])))
    return made


def _alike(known: Known) -> Iterator[tuple[str, str, dict[str, Metrics]]]:
    """(task, how it was asked, the entries that were asked so)."""
    places = {(task, asking(entry)) for entries in known.values() for task, entry in entries.items()}
    for task, asked in sorted(places):
        of_task = {name: entries[task] for name, entries in known.items() if task in entries}
        yield task, asked, {name: entry for name, entry in of_task.items() if asking(entry) == asked}


def asking(entry: Metrics) -> str:
    """How a task was asked, in words."""
    settings = about(entry)
    n, shots = settings["n"], settings["n_shot"]
    words = [f"{n:,} document{'s' if n != 1 else ''}", f"{shots}-shot"]
    words += [f"limit {settings['limit']:g}"] if settings["limit"] is not None else []
    words += [] if settings["apply_chat_template"] else ["without the chat template"]
    return ", ".join(words) + few(n)


def basis(inputs: Inputs) -> str:
    """What measured it; empty where nothing is known."""
    entries = [entry for found in by_model(inputs).values() for entry in found.values()]
    versions = ", ".join(sorted({about(entry)["lm_eval"] for entry in entries}))
    return f"By lm-evaluation-harness {versions}" if entries else ""


def text(known: Known, models: Sequence[str]) -> str:
    """The comparison for a terminal: a row a task and metric, a column a model; then the sentences.

    known: by model, of all that was asked like this. models: those to show.
    """
    lines = []
    shown = {model: known[model] for model in models}
    for task, asked, entries in _alike(shown):
        for column in columns(list(entries.values())):
            cells = [str(cell(entries.get(model, {}), column)) for model in models]
            if set(cells) != {MISSING}:
                lines.append([task, asked, column.heading, *cells])
    floors = {model: entries for model, entries in known.items() if model in (paths.SFT, paths.BASE)}
    told = _verdicts({**floors, **shown}, paths.SFT, paths.BASE, NAMES)
    return "\n".join([markdown_table(["task", "asked", "metric", *models], lines), "", *told]).rstrip()
