"""What metrics/data.json says of the sizes of the files: what is left out, what is too small, how much is needed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from rlhf_lib.common.few import FEW
from rlhf_lib.common.left_out import NO_PREFERENCES, NOTHING_GIVES, why_no_preferences
from rlhf_lib.common.policies import POLICIES, TRAINERS
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.data.prepare.records import FILES
from rlhf_lib.data.prepare.roles import OF_FILE, split_of_file, split_shares, uses

LEARNS_FROM = {"reward": "reward", "judge": "judge"} | {name: policy.learns_from for name, policy in POLICIES.items()}

Report = Mapping[str, Any]  # metrics/data.json


def wanted(report: Report) -> set[str]:
    """The files of data/splits that some source is for."""
    found = {use for source in report["sources"].values() for use in uses(source["roles"].split())}
    return {name for name in FILES if OF_FILE.get(name.partition("_")[0], "test") in {*found, "test"}}


def remarks(report: Report) -> Iterator[str]:
    """A line on each: the stages without rows, the validation files without any, the held-out files with few."""
    names, prompts = wanted(report), {name: split["prompts"] for name, split in report["splits"].items()}
    repeated = report["dropped_rows"].get("duplicate_prompt", {})
    for name, source in report["sources"].items():
        count = sum(number for part, number in repeated.items() if part.partition("/")[0] == name)
        if len(report["sources"]) > 1 and count > source["rows_in"] / 2:
            yield (
                f"{name}: {count} of {source['rows_in']} rows repeat a prompt and are not used; list it before "
                "the other source, or give the two different roles in prepare.mixture"
            )
    if differ := sum(report["dropped_rows"].get("columns_differ", {}).values()):
        yield (
            f"{differ} rows repeat a prompt with other values in the reward_columns and are not used "
            "(columns_differ in data/rejected.jsonl)"
        )
    idle: dict[str, list[str]] = {}
    for stage in TRAINERS:
        file = LEARNS_FROM[stage]
        if f"{file}_train" not in names:
            why = NOTHING_GIVES[file]
            idle.setdefault(why_no_preferences(names) if why == NO_PREFERENCES else why, []).append(stage)
    if idle:
        yield "left out: " + "; ".join(f"{', '.join(stages)}: {why}" for why, stages in idle.items())
    held_out = {name: prompts[name] for name in FILES if name in _held_out(names)}
    if empty := [name for name, count in held_out.items() if not count]:
        yield f"no prompt was left for {', '.join(empty)}: what learns from the others goes without validation"
    if small := [f"{name} {count}" for name, count in held_out.items() if 0 < count < FEW]:
        yield f"fewer than {FEW} prompts in {', '.join(small)}: too few to tell"


def expected(report: Report, params: PrepareParams) -> dict[str, float]:
    """The share of all kept prompts that each held-out file can expect, by the roles of their sources."""
    total = sum(source["rows_kept"] for source in report["sources"].values())
    found: dict[str, float] = {}
    for name in _held_out(wanted(report)):
        for source in report["sources"].values():
            roles = source["roles"].split()
            if name == "test" or OF_FILE[name.partition("_")[0]] in uses(roles):
                share = split_shares(roles, params).get(split_of_file(name, params), 0.0)
                found[name] = found.get(name, 0.0) + share * source["rows_kept"] / total
    return found


def needed(report: Report, params: PrepareParams) -> dict[str, int]:
    """How many prompts it takes, with these sources and shares, until each held-out file can expect `FEW`; rounded to
    two digits."""
    return {name: _rounded(FEW / share) for name, share in sorted(expected(report, params).items()) if share > 0}


def _held_out(names: Collection[str]) -> set[str]:
    """The files that nothing learns from, without those that have the prompts of another: groups those of reward, and
    thumbs those of the pairs, where there are any."""
    same = ("groups", "thumbs") if "preference_train" in names else ("groups",)
    return {name for name in names if not name.endswith("_train") and not name.startswith(same)}


def _rounded(number: float) -> int:
    unit = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(round(number / unit, 6)) * unit
