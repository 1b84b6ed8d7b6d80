"""What lm-evaluation-harness says of the policies, and in words whether alignment cost what the SFT model could do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rlhf_lib.capability.numbers import about
from rlhf_lib.common import paths
from rlhf_lib.common.few import few
from rlhf_lib.common.policies import LABELS, POLICIES
from rlhf_lib.report.columns import Column
from rlhf_lib.report.inputs import Inputs, Metrics, is_number
from rlhf_lib.report.tables import Table, cell, markdown_table, table
from rlhf_lib.report.verdict import Difference, number

DIGITS = 3
MOST = 6  # numbers that a sentence lists
NAMES = {paths.model(policy): label for policy, label in LABELS.items()}  # by model


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
    """What is known of this run's policies, by policy and task: where dvc.lock has the model that was measured."""
    hashes = {path: md5 for _, path, md5 in inputs.hashes}
    found = {}
    for policy in POLICIES:
        model = paths.model(policy)
        entries = inputs.lm_eval.get(model, {}).items()
        if kept := {task: entry for task, entry in entries if about(entry)["model_md5"] == hashes.get(model, "")}:
            found[policy] = kept
    return found


def stale(inputs: Inputs) -> str:
    """A sentence on the policies whose numbers are of another model than this run's; empty where there are none."""
    known = by_model(inputs)
    old = [LABELS[p] for p in POLICIES if inputs.lm_eval.get(paths.model(p), {}).keys() - known.get(p, {}).keys()]
    return f"Measured before the model was trained anew, and left out here: {', '.join(old)}." if old else ""


def changes(entries: Mapping[str, Metrics]) -> Iterator[Change]:
    """A model's differences from the SFT model, of tasks that are no part of a group here."""
    for task, entry in entries.items():
        settings = about(entry)
        if settings.get("part_of") in entries:
            continue
        for metric, higher in settings["higher_is_better"].items():
            if is_number(value := entry.get(f"{metric}_diff")):
                found = Difference(value, entry.get(f"{metric}_diff_se"))
                yield Change(f"{task} {metric}", found, higher, settings["n"])


def sentence(label: str, entries: Mapping[str, Metrics]) -> str:
    """Whether a model lost capability against the SFT model; empty where nothing is known of it."""
    found = list(changes(entries))
    if not found:
        return ""
    groups = [
        ("worse", [c for c in found if c.found.clear and c.is_cost]),
        ("better", [c for c in found if c.found.clear and not c.is_cost]),
        ("undecided, for the interval covers 0,", [c for c in found if not c.found.clear]),
    ]
    told = "; ".join(f"{what} in {_listed(group)}" for what, group in groups if group)
    cost = "alignment cost capability" if groups[0][1] else "no clear cost of capability"
    return f"{label}: {cost}. Against SFT: {told}."


def _listed(group: Sequence[Change]) -> str:
    more = f" and {len(group) - MOST} more" if len(group) > MOST else ""
    return ", ".join(map(str, group[:MOST])) + more


def sentences(inputs: Inputs) -> list[str]:
    """One of each policy."""
    return [told for p, entries in by_model(inputs).items() if (told := sentence(LABELS[p], entries))]


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
    """Of each task its name, how it was asked, and a row a policy."""
    known = by_model(inputs)
    tasks = dict.fromkeys(task for entries in known.values() for task in entries)
    made = []
    for task in tasks:
        entries = {policy: found[task] for policy, found in known.items() if task in found}
        asked = " / ".join(dict.fromkeys(asking(entry) for entry in entries.values()))
        rows = [(policy, LABELS[policy], entry) for policy, entry in entries.items()]
        made.append((task, asked, table(columns(list(entries.values())), [("", rows)])))
    return made


def asking(entry: Metrics) -> str:
    """How a task was asked, in words."""
    settings = about(entry)
    n, shots = settings["n"], settings["n_shot"]
    words = [f"{n:,} document{'s' if n != 1 else ''}", f"{shots}-shot"]
    words += [f"limit {settings['limit']:g}"] if settings["limit"] is not None else []
    words += [] if settings["apply_chat_template"] else ["without the chat template"]
    words += ["errors not paired by document"] if settings.get("paired") is False else []
    return ", ".join(words) + few(n)


def basis(inputs: Inputs) -> str:
    """What measured it; empty where nothing is known."""
    entries = [entry for found in by_model(inputs).values() for entry in found.values()]
    versions = ", ".join(sorted({about(entry)["lm_eval"] for entry in entries}))
    return f"By lm-evaluation-harness {versions}" if entries else ""


def text(found: Mapping[str, Mapping[str, Metrics]]) -> str:
    """The comparison for a terminal: a row a task and metric, a column a model; then the sentences. found: by model."""
    header = ["task", "asked", "metric", *found]
    lines = []
    for task in dict.fromkeys(task for entries in found.values() for task in entries):
        of_task = [entries[task] for entries in found.values() if task in entries]
        for column in columns(of_task):
            cells = [str(cell(entries.get(task, {}), column)) for entries in found.values()]
            if set(cells) != {"–"}:
                lines.append([task, asking(of_task[-1]), column.heading, *cells])
    told = [sentence(NAMES.get(model, model), entries) for model, entries in found.items()]
    return "\n".join([markdown_table(header, lines), "", *filter(None, told)]).rstrip()
