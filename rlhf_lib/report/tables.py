"""The numbers as tables: of text for the terminal, of cells for the page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_lib.common.few import FEW
from rlhf_lib.common.policies import LABELS
from rlhf_lib.measure.comparison import by_prompt
from rlhf_lib.measure.estimates import mean_and_se, with_errors
from rlhf_lib.report.columns import (
    AT_EQUAL_LENGTH,
    DATASET_COLUMNS,
    DIFFERENCES,
    EOS,
    GOLD,
    JUDGE,
    LENGTH,
    PERPLEXITY,
    REWARD,
    TERMINAL,
    TERMINAL_TEXT,
    Column,
)
from rlhf_lib.report.differences import Difference, number
from rlhf_lib.report.head_to_head import judged
from rlhf_lib.report.inputs import Inputs, Metrics, is_number
from rlhf_lib.report.verdict import comparisons, mode_label

MISSING = "–"


@dataclass(frozen=True)
class Cell:
    """A number as text, its standard error where it has one, and whether it is a clear difference."""

    value: str
    se: str = ""
    clear: bool = False

    def __str__(self) -> str:
        return f"{self.value} ± {self.se}" if self.se else self.value


@dataclass(frozen=True)
class TableRow:
    """A line of a table: whose it is (a key of `drawing.PALETTE`, or ""), its name, its cells."""

    kind: str
    name: str
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """Columns, and rows in named groups (an unnamed group has no line of its own)."""

    columns: list[Column]
    groups: list[tuple[str, list[TableRow]]]

    @property
    def rows(self) -> list[TableRow]:
        return [row for _, rows in self.groups for row in rows]


def cell(measured: Metrics, column: Column) -> Cell:
    """The number `column` of `measured`, with its standard error if there is one."""
    value, se = measured.get(column.key), measured.get(f"{column.key}_se")
    if not is_number(value):
        return Cell(MISSING)
    text = number(value, column.digits, column.sign)
    if not is_number(se):
        return Cell(text)
    return Cell(text, f"{se:.{column.digits}f}", bool(column.sign) and Difference(value, se).clear)


def table(columns: Sequence[Column], groups: Iterable[tuple[str, Sequence[tuple[str, str, Metrics]]]]) -> Table:
    """A table of (kind, name, numbers) in groups, without the columns and groups in which there is nothing."""
    kept = [(title, list(entries)) for title, entries in groups if entries]
    present = [c for c in columns if any(is_number(m.get(c.key)) for _, entries in kept for *_, m in entries)]
    rows = [(title, [TableRow(k, n, [cell(m, c) for c in present]) for k, n, m in entries]) for title, entries in kept]
    return Table(present, rows)


def policy_table(inputs: Inputs, columns: Sequence[Column]) -> Table:
    """One row per policy and mode; best-of-n and the dataset's best answers below the headline mode."""
    groups: list[tuple[str, list[tuple[str, str, Metrics]]]] = []
    for mode in inputs.modes:
        rows: list[tuple[str, str, Metrics]] = [
            (policy, LABELS[policy], inputs.measured(policy, mode))
            for policy in inputs.policies
            if inputs.measured(policy, mode)
        ]
        rows += best_of_n_rows(inputs) if mode == inputs.headline else []
        groups.append((mode_label(mode), rows))
    chosen = chosen_numbers(inputs)
    return table(columns, [*groups, ("dataset", [("chosen", "chosen", chosen)] if chosen else [])])


def best_of_n_rows(inputs: Inputs) -> list[tuple[str, str, Metrics]]:
    """Best-of-n by n; its KL is the bound."""
    entries = sorted(inputs.best_of_n.values(), key=lambda entry: entry["n"])
    return [("best_of_n", f"best of {entry['n']}", {**entry, "kl": entry["kl_bound"]}) for entry in entries]


def chosen_numbers(inputs: Inputs) -> Metrics:
    """Means and standard errors of the dataset's best answers; empty where they have not been scored."""
    rows, numbers = inputs.chosen(), dict[str, float | None]()
    for key in ("gold", "judge", "reward", "length") if rows else ():
        if all(is_number(row.get(key)) for row in rows):
            numbers[key], numbers[f"{key}_se"] = mean_and_se(by_prompt(rows, lambda row: row[key]))  # noqa: B023
    return numbers


def dataset_table(inputs: Inputs) -> Table:
    """What each policy makes of the dataset's own answers."""
    rows = [(p, LABELS[p], inputs.measured(p, "dataset")) for p in inputs.policies if inputs.measured(p, "dataset")]
    return table(DATASET_COLUMNS, [("", rows)])


def difference_table(inputs: Inputs) -> Table:
    """One method less another in each mode, paired by prompt, and its wins over the other; a group for each two."""
    groups: dict[str, list[tuple[str, str, Metrics]]] = {}
    for (one, other), mode, keys in comparisons(inputs):
        numbers = {**with_errors(keys), **judged(inputs, one, other, mode)}
        groups.setdefault(f"{LABELS[one]} − {LABELS[other]}", []).append(("", mode_label(mode), numbers))
    return table(DIFFERENCES, groups.items())


def format_table(inputs: Inputs) -> Table:
    """True quality by the form of answer asked for, in the headline mode."""
    by_format = {p: inputs.measured(p).get("gold_by_format", {}) for p in inputs.policies}
    columns = [Column(name, name) for name in sorted({name for formats in by_format.values() for name in formats})]
    return table(columns, [("", [(p, LABELS[p], formats) for p, formats in by_format.items() if formats])])


SCORER_LABELS = {"reward": "reward model", "judge": "judge"}
SCORER_COLUMNS = [
    Column("accuracy", "accuracy", 3, "", "test pairs that are ordered as their scores"),
    Column("pairs", "pairs", 0),
    Column("gold_accuracy", "accuracy on true order", 3, "", "test pairs that are ordered as their true quality"),
    Column("gold_pairs", "pairs of it", 0),
    Column("validation_accuracy", "validation accuracy", 3),
    Column("ece", "calibration error", 3, "", "mean gap of predicted and true share (ECE)"),
    Column("mse", "MSE", 4, "", "mean squared error against the target"),
    Column("mae", "MAE", 4, "", "mean absolute error against the target"),
    Column("fitted_mse", "MSE of a fit", 4, "", "squared error of the straight line from rewards to targets"),
    Column("sign_accuracy", "sign accuracy", 3, "", "answers on the right side of the middle"),
    Column("loss", "training loss", 3, "", "the last that was logged"),
    Column("train_pairs", "training pairs", 0),
    Column("train_groups", "training groups", 0),
    Column("mean", "mean", 2, "", "of the raw reward"),
    Column("std", "deviation", 2, "", "of the raw reward"),
]


def scorer_table(inputs: Inputs) -> Table:
    """The reward model and the judge on the test rows."""
    rows = [(stage, SCORER_LABELS[stage], summary) for stage, summary in inputs.reward_models.items()]
    return table(SCORER_COLUMNS, [("", rows)])


def source_table(inputs: Inputs) -> Table:
    """Accuracy of the reward model and the judge by source."""
    sources = {s for summary in inputs.reward_models.values() for s in summary.get("accuracy_by_source") or {}}
    columns = [Column(stage, SCORER_LABELS[stage], 3) for stage in inputs.reward_models]
    columns.append(Column("pairs", "pairs", 0))
    rows: list[tuple[str, str, Metrics]] = []
    for source in sorted(sources):
        entries = {s: (m.get("accuracy_by_source") or {}).get(source, {}) for s, m in inputs.reward_models.items()}
        accuracy = {stage: entry.get("accuracy") for stage, entry in entries.items()}
        errors = {f"{stage}_se": entry.get("accuracy_se") for stage, entry in entries.items()}
        rows.append(
            ("", source, {**accuracy, **errors, "pairs": max(entry.get("pairs", 0) for entry in entries.values())})
        )
    return table(columns, [("", rows)])


LLM_COLUMNS = [
    Column("win_rate", "win rate of the first", 3, "", "ties and verdicts that change with the order count half"),
    Column("lc_win_rate", "at equal length", 3, "", f"the win rate, {AT_EQUAL_LENGTH}"),
    Column("wins", "wins", 0),
    Column("ties", "ties", 0),
    Column("losses", "losses", 0),
    Column("inconsistent", "inconsistent", 0, "", "ties that are a verdict for whatever stood in one place"),
    Column("identical", "identical", 0, "", "ties that were not asked: both answers are the same"),
    Column("prompts", "prompts", 0),
    Column("position_agreement", "agreement of both orders", 3, "", "of the pairs that were asked"),
    Column("a_share", "share of the first place", 3, "", "among the verdicts for one place; 0.5 is fair"),
    Column("unparsed", "unparsed", 0),
    Column("refused", "refused", 0),
]


def llm_judge_table(inputs: Inputs) -> Table:
    """The language model's verdicts, a row a comparison."""
    rows: list[tuple[str, str, Metrics]] = [
        ("", " against ".join(LABELS.get(part, part) for part in name.split("-")), counts)
        for name, counts in inputs.llm_judge.items()
        if isinstance(counts, Mapping)
    ]
    return table(LLM_COLUMNS, [("", rows)])


COUNTS = ["rejected_by_load", "dropped_rows", "dropped_responses", "prompts_without_pair", "truncated"]


def split_table(data: Metrics) -> Table:
    """The size of each split."""
    columns = [
        Column("rows", "rows", 0),
        Column("prompts", "prompts", 0),
        Column("mean_score_chosen", "mean score chosen"),
        Column("mean_score_rejected", "mean score rejected"),
        Column("mean_score_gap", "mean gap"),
    ]
    return table(columns, [("", [("", name, split) for name, split in data.get("splits", {}).items()])])


def dropped(data: Metrics) -> list[tuple[str, str, int]]:
    """(what, reason, number) of all that was left out or cut, over all sources."""
    return [
        (group.replace("_", " "), reason.replace("_", " "), sum(_numbers(counts)))
        for group in COUNTS
        for reason, counts in (data.get(group) or {}).items()
    ]


def _numbers(counts: Any) -> list[int]:
    """Every whole number in nested mappings."""
    if isinstance(counts, Mapping):
        return [number for value in counts.values() for number in _numbers(value)]
    return [counts] if isinstance(counts, int) else []


def first_number(name: str) -> float:
    """Where a bin's name begins, so that bins sort by it: 0.5 of "0.5-1"."""
    found = re.search(r"\d+(\.\d+)?", name)
    return float(found[0]) if found else 0.0


def text_table(inputs: Inputs) -> str:
    """The main numbers for a terminal of 120 columns; ± is one standard error over prompts."""
    scored = any(inputs.known(column.key) for column in (GOLD, JUDGE, REWARD))
    made = policy_table(inputs, TERMINAL if scored else TERMINAL_TEXT)
    header = ["policy", "sampling", *(column.heading for column in made.columns)]
    brief = [column in (LENGTH, EOS) for column in made.columns]
    lines = [
        [row.name, title, *(c.value if short else str(c) for c, short in zip(row.cells, brief, strict=True))]
        for title, rows in made.groups
        for row in rows
    ]
    of_dataset = dataset_table(inputs)
    perplexity = [row.cells[i] for row in of_dataset.rows for i, c in enumerate(of_dataset.columns) if c == PERPLEXITY]
    notes = [f"Perplexity of the dataset's answers under SFT: {perplexity[0]}"] if perplexity and not scored else []
    return "\n".join([markdown_table(header, lines), *notes, *filter(None, [test_note(inputs)])])


def test_note(inputs: Inputs) -> str:
    """A sentence where what the tables show rests on few test prompts."""
    return f"n = {inputs.prompts} test prompts: too few to tell." if 0 < inputs.prompts < FEW else ""


def validation_note(data: Metrics) -> str:
    """A sentence where what the curves show of validation rests on few prompts."""
    held = {name: split.get("prompts", 0) for name, split in data.get("splits", {}).items() if "_validation" in name}
    few = [f"{name} n = {count}" for name, count in held.items() if 0 < count < FEW]
    return f"{', '.join(few)}: too few to tell." if few else ""


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns also line up as plain text."""
    rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]  # the name of a source or of an experiment
    widths = [max(len(line[i]) for line in (header, *rows)) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in lines
    )
