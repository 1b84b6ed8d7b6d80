"""metrics/data.json, counted on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhf_lib.common.rows import JsonObject, Row
from rlhf_lib.data.prepare.clean import Cleaned
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.data.prepare.records import FILES, Recipe
from rlhf_lib.data.prepare.roles import OF_FILE, Use, split_of_file

Counts = dict[str, Counter[str]]  # how many by reason, then by source
CAUSES = {  # of a row that is dropped -> the param that can keep it
    "foreign_prompt": "prepare.languages",
    "prompt_pattern": "prepare.drop_patterns",
    "prompt_too_long": "prepare.max_prompt_tokens",
}
SCORES = ("score_chosen", "score_rejected")


def count(counts: Counts, reason: str, source: str) -> None:
    """One more for this reason and source."""
    counts.setdefault(reason, Counter())[source] += 1


@dataclass
class FileTally:
    """Of one file: its records by source, its prompts, and the sums of its scores."""

    rows_by_source: Counter[str] = field(default_factory=Counter)
    prompts: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    good: int | None = None  # of thumbs
    last_id: str = ""

    def add(self, row: Row, record: JsonObject) -> None:
        """One more record; those of a row come one after the other."""
        self.rows_by_source[row["source"]] += 1
        self.prompts += row["id"] != self.last_id
        self.last_id = row["id"]
        for key in SCORES:
            if key in record:
                self.sums[key] += record[key]
        if "label" in record:
            self.good = (self.good or 0) + record["label"]

    def summary(self) -> dict[str, Any]:
        """Counts, and means of the scores in the units of the sources."""
        rows = self.rows_by_source.total()
        means = {f"mean_{key}": total / rows for key, total in self.sums.items()}
        if means:
            means["mean_score_gap"] = means["mean_score_chosen"] - means["mean_score_rejected"]
        thumbs = {} if self.good is None else {"good": self.good}
        return {"prompts": self.prompts, "rows": rows, **thumbs, "rows_by_source": self.rows_by_source, **means}


@dataclass
class Tally:
    """What happened to the rows, by reason and source."""

    rows_in: Counter[str] = field(default_factory=Counter)
    rows_kept: Counter[str] = field(default_factory=Counter)
    dropped_rows: Counts = field(default_factory=dict)
    dropped_responses: Counts = field(default_factory=dict)
    truncated: Counts = field(default_factory=dict)
    no_pair: Counts = field(default_factory=dict)
    foreign: dict[str, Counter[str]] = field(default_factory=lambda: {"prompts": Counter(), "responses": Counter()})
    splits: Counter[str] = field(default_factory=Counter)
    files: dict[str, FileTally] = field(default_factory=lambda: {name: FileTally() for name in FILES})

    def cleaned(self, row: Cleaned) -> None:
        """Count what cleaning made of a row."""
        self.rows_in[row.source] += 1
        if row.dropped:
            count(self.dropped_rows, row.dropped.reason, row.source)
            if row.dropped.language:
                self.foreign["prompts"][row.dropped.language] += 1
        for dropped in row.dropped_responses:
            count(self.dropped_responses, dropped.reason, row.source)
            if dropped.language:
                self.foreign["responses"][dropped.language] += 1
        for what in row.truncated:
            count(self.truncated, what, row.source)

    def kept(self, row: Row, split: str) -> None:
        """Count a row that has a split."""
        self.rows_kept[row["source"]] += 1
        self.splits[split] += 1

    def report(self, params: PrepareParams, recipes: Mapping[str, Recipe], rejected: Any) -> dict[str, Any]:
        """metrics/data.json."""
        return {
            "rows_in": self.rows_in.total(),
            "rows_kept": self.rows_kept.total(),
            "sources": {
                name: {
                    "rows_in": _of(self.rows_in, name),
                    "rows_kept": _of(self.rows_kept, name),
                    "roles": " ".join(recipe.roles),
                    "score_range": list(recipe.scores),
                }
                for name, recipe in recipes.items()
            },
            "rejected_by_load": rejected,
            "dropped_rows": self.dropped_rows,
            "dropped_responses": self.dropped_responses,
            "truncated": self.truncated,
            "prompts_without_pair": self.no_pair,
            "language": {
                "confidence": params.language_confidence,
                "kept": " ".join(params.languages) or "any",
                "foreign_prompts": self.foreign["prompts"],
                "foreign_responses": self.foreign["responses"],
            },
            "splits": {name: tally.summary() for name, tally in self.files.items()},
        }

    def fault(self, params: PrepareParams, wanted: Collection[Use]) -> str | None:
        """What to change where there is nothing to learn from or to test on, as "<param>: ..."; else None.

        wanted: the uses that some source is for; files of others may be empty. So may validation, of too few rows.
        """
        if not self.splits:
            lost = ", ".join(f"{reason} {counts.total()}" for reason, counts in sorted(self.dropped_rows.items()))
            most_frequent = max(self.dropped_rows, key=lambda reason: self.dropped_rows[reason].total(), default="")
            param = CAUSES.get(most_frequent, "load.sources")
            return f"{param}: no row of {self.rows_in.total()} is left (dropped: {lost or 'none'}); keep more"
        for name, tally in self.files.items():
            part, _, half = name.partition("_")
            if not tally.prompts and half != "validation" and (part == "test" or OF_FILE[part] in wanted):
                return self._way_out(name, params)
        return None

    def _way_out(self, name: str, params: PrepareParams) -> str:
        part = name.partition("_")[0]
        split = split_of_file(name, params)
        home = split.partition("_")[0]
        if not self.splits[split]:
            return (
                f"prepare.{home}_share: none of {self.splits.total()} prompts fell into {name}; "
                "raise it, or load more rows (or sources) for it"
            )
        if part == "sft" and params.sft_responses == "above_score":
            return f"prepare.sft_min_score: no response in {name} reaches {params.sft_min_score}; lower it"
        if part in ("sft", "prompts"):
            return f"prepare.mixture: no row of {name} has a source with the role {part}; give one the role"
        lost = ", ".join(f"{reason} {counts.total()}" for reason, counts in sorted(self.no_pair.items()))
        if "gap_too_small" not in self.no_pair:
            return (
                f"load.sources: no prompt of {name} has two responses with different scores ({lost}); add a source, or "
                "give this one the role kto, for thumbs"
            )
        return f"prepare.min_score_gap: no pair in {name} (prompts without one: {lost}); lower it, or load more rows"


def _of(counts: Counter[str], name: str) -> int:
    """The count of a source with all its parts."""
    return sum(number for source, number in counts.items() if source.partition("/")[0] == name)
