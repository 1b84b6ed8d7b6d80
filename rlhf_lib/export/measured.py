"""What measured an exported model, beside what made it: the params of that, its splits, and its capability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf_lib.capability import store
from rlhf_lib.capability.numbers import about
from rlhf_lib.common import paths
from rlhf_lib.export.facts import Facts
from rlhf_lib.export.provenance import Run
from rlhf_lib.report import capability, tables
from rlhf_lib.report.inputs import SCORERS
from rlhf_lib.reward.params import GROUPS

Entries = Mapping[str, Mapping[str, Any]]  # by task


def scorers(known: Facts) -> list[str]:
    """The reward models whose scores are among the numbers."""
    if known.inputs is None or known.stage is None:
        return []
    numbers = known.inputs.measured(known.stage)
    return [name for name in SCORERS if numbers.get(name) is not None]


def params(known: Facts) -> dict[str, Any]:
    """Of the evaluation, and of the reward models that scored it, less those of the way to the model."""
    if known.inputs is None:
        return {}
    found, of_way = known.run.params(f"evaluate@{known.stage}", *scorers(known)), known.params
    new = {s: {k: v for k, v in of.items() if k not in of_way.get(s, {})} for s, of in found.items()}
    return {section: of for section in ("evaluate", *scorers(known)) if (of := new.get(section))}


def splits(known: Facts) -> set[str]:
    """The names of the splits that made the model or its numbers; of groups, only where a reward model learnt them."""
    if known.stage is None:
        return set()
    run, way = known.run, known.run.way(known.stage)
    stages = [*way, *([f"evaluate@{known.stage}", *scorers(known)] if known.inputs else [])]
    read = {path.removeprefix(f"{paths.SPLITS}/").removesuffix(".jsonl") for path in run.read_by(stages)}
    return {name for name in read if not name.startswith("groups_") or _learns_groups(run)}


def _learns_groups(run: Run) -> bool:
    """Whether the reward model learns from all answers of a prompt; stage reward reads them in any case."""
    return run.params("reward").get("reward", {}).get("loss_type") in GROUPS


def of_lm_eval(known: Facts) -> dict[str, dict[str, Any]]:
    """What make lm-eval found of the very files of this model, by task; differences only from the SFT model that it
    began as. A broken file has nothing."""
    found = _read()
    own = {t: entry for of in found.values() for t, entry in of.items() if about(entry)["model_md5"] == known.hashed}
    start = known.run.dep(known.stage, paths.SFT) if known.stage else None
    sft = {t for t, entry in found.get(paths.SFT, {}).items() if start and about(entry)["model_md5"] == start}
    return {task: entry if task in sft else _without_differences(entry) for task, entry in own.items()}


def capability_told(label: str, entries: Entries) -> str:
    """In what the model is worse than the SFT model, better, or neither; empty where it was not compared."""
    found = _read()
    return capability.sentence(label, entries, found.get(paths.SFT, {}), found.get(paths.BASE, {}))


def _read() -> dict[str, dict[str, Any]]:
    try:
        return store.read()
    except SystemExit:
        return {}


def _without_differences(entry: Mapping[str, Any]) -> dict[str, Any]:
    names = {f"{metric}_{end}" for metric in about(entry)["higher_is_better"] for end in ("diff", "diff_se")}
    return {key: value for key, value in entry.items() if key not in names}


def capability_table(entries: Entries) -> str:
    """A line a task and metric, as Markdown: the number and its difference from the SFT model, with standard errors."""
    lines = []
    for task, entry in entries.items():
        columns = capability.columns([entry])  # each metric, and its difference
        for metric, less in zip(columns[::2], columns[1::2], strict=True):
            value, difference = tables.cell(entry, metric), tables.cell(entry, less)
            if value.value != tables.MISSING:
                lines.append([task, capability.asking(entry), metric.heading, str(value), str(difference)])
    return tables.markdown_table(["task", "asked", "metric", "value", "less SFT"], lines) if lines else ""
