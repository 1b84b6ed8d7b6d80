"""The records that a row gives to the files of its split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from rlhf_lib.common.rows import JsonObject, Message, Row, ScoredResponse
from rlhf_lib.data.prepare.derive import PairRule, Range, group, pairs, score, sft_responses, target
from rlhf_lib.data.prepare.entries import Entry, SourceInfo
from rlhf_lib.data.prepare.params import MixtureParams, PrepareParams, Role
from rlhf_lib.data.prepare.roles import PREFERENCES, Use, pair_rule, parts_of, uses
from rlhf_lib.data.prepare.split import spread

FILES = (
    "sft_train",
    "sft_validation",
    "reward_train",
    "reward_validation",
    "groups_train",
    "groups_validation",
    "preference_train",
    "preference_validation",
    "thumbs_train",
    "thumbs_validation",
    "prompts_train",
    "prompts_validation",
    "judge_train",
    "judge_validation",
    "test",
)


@dataclass(frozen=True)
class Recipe:
    """How the rows of one source become records."""

    roles: Sequence[Role]
    pairs: PairRule
    labels: bool  # scores are 1 (preferred) and 0
    scores: Range  # becomes the target range
    params: PrepareParams
    columns: Sequence[str] = ()  # of all sources, for reward functions: a file has the same columns in every record


def recipes(sources: Sequence[SourceInfo], entries: Sequence[Entry], params: PrepareParams) -> dict[str, Recipe]:
    """The recipe of each source, by its name."""
    measured = _measured_ranges(entries)
    columns = list(dict.fromkeys(name for source in sources for name in source.reward_columns))
    return {source.name: _recipe(source, measured.get(source.name, (0.0, 0.0)), params, columns) for source in sources}


def records(row: Row, split: str, roles: Sequence[Role], recipe: Recipe) -> Iterator[tuple[str, JsonObject]]:
    """(file, record) of everything that `row` gives to its split, with these roles of those that its source has."""
    part, _, half = split.partition("_")
    if split == "test":
        # a prompt without scored responses is tested on too; its answers are what it is compared with
        responses = _with_targets(_compared_with(row, recipe), recipe)
        yield split, {**_head(row), **_columns(row, recipe), "responses": responses}
        return
    wanted = [use for use in uses(roles) if part in parts_of(use, recipe.params)]
    found = pairs(row["responses"], recipe.pairs) if {*wanted} & {*PREFERENCES, "kto"} else []
    of_pairs = [_pair(row, number, *pair) for number, pair in enumerate(found)]
    for use in wanted:
        yield from _records(row, use, half, of_pairs, recipe)


def _records(
    row: Row, use: Use, half: str, of_pairs: Sequence[JsonObject], recipe: Recipe
) -> Iterator[tuple[str, JsonObject]]:
    """What the row gives to one use."""
    if use == "sft":
        for number, response in enumerate(_sft_responses(row, recipe)):
            yield f"sft_{half}", {**_head(row, number), "completion": _said(response)}
    elif use == "prompts":
        yield f"prompts_{half}", {**_head(row), **_columns(row, recipe)}
    elif use == "kto":
        yield from ((f"thumbs_{half}", record) for record in _thumbs(row, of_pairs, recipe))
    else:
        name = "preference" if use == "dpo" else use
        yield from ((f"{name}_{half}", record) for record in of_pairs)
        if use == "reward" and (members := group(row["responses"], recipe.params.group_size)):
            yield f"groups_{half}", {**_head(row), "responses": _with_targets(members, recipe)}


def scored_in_order(row: Row) -> list[ScoredResponse]:
    """The responses that have a score, in the order of the row."""
    return [response for response in row["responses"] if response["score"] is not None]


def _compared_with(row: Row, recipe: Recipe) -> list[ScoredResponse]:
    """The answers that the test has beside a policy's: of thumbs only the good ones."""
    responses = scored_in_order(row) or row["responses"]
    if recipe.labels and "kto" in recipe.roles:
        return [response for response in responses if response["score"] != 0]
    return responses


def _sft_responses(row: Row, recipe: Recipe) -> list[ScoredResponse]:
    which = recipe.params.sft_responses
    if recipe.labels:
        # a rejected answer is no demonstration, not even where the preferred one was dropped
        preferred = [response for response in row["responses"] if response["score"] != 0]
        return preferred[:1] if which == "best" else preferred
    return sft_responses(row["responses"], which, recipe.params.sft_min_score)


def _pair(row: Row, number: int, chosen: ScoredResponse, rejected: ScoredResponse) -> JsonObject:
    return {
        **_head(row, number),
        "chosen": _said(chosen),
        "rejected": _said(rejected),
        "score_chosen": score(chosen),
        "score_rejected": score(rejected),
    }


def _thumbs(row: Row, of_pairs: Sequence[JsonObject], recipe: Recipe) -> Iterator[JsonObject]:
    """The row's answers as good or bad: each that has a thumb, or else both of every pair, as DPO learns from them.

    The names are those of TRL's unpaired preferences, and so is what becomes of a pair.
    """
    if recipe.labels:
        found = [(_said(response), score(response) > 0) for response in scored_in_order(row)]
    else:
        found = [(pair[side], side == "chosen") for pair in of_pairs for side in ("chosen", "rejected")]
    for number, (completion, label) in enumerate(found):
        yield {**_head(row, number), "completion": completion, "label": label}


def _with_targets(responses: Sequence[ScoredResponse], recipe: Recipe) -> list[JsonObject]:
    ends = cast(Range, tuple(recipe.params.target_range))
    return [
        {**response, "target": None if response["score"] is None else target(score(response), recipe.scores, ends)}
        for response in responses
    ]


def _head(row: Row, number: int | None = None) -> JsonObject:
    """The keys that the records of every file share; `number` keeps ids distinct where a row gives several."""
    record_id = row["id"] if number is None else f"{row['id']}-{number}"
    return {"id": record_id, "source": row["source"], "prompt": row["prompt"]}


def _columns(row: Row, recipe: Recipe) -> JsonObject:
    """What reward functions get of the row; None where its source, or the row, has no such column."""
    return {name: row.get("columns", {}).get(name) for name in recipe.columns}


def _said(response: ScoredResponse) -> list[Message]:
    return [{"role": "assistant", "content": response["content"]}]


def _recipe(source: SourceInfo, measured: Range, params: PrepareParams, columns: Sequence[str]) -> Recipe:
    own = params.mixture.get(source.name, MixtureParams())
    low, high = own.score_range or source.score_range or measured
    return Recipe(source.roles, pair_rule(source, params), source.labels, (low, high), params, columns)


def _measured_ranges(entries: Sequence[Entry]) -> Mapping[str, Range]:
    """The least and greatest score of each source's training rows: held-out rows must not move the targets.

    Nor must those of the judge, which learns from prompts of its own.
    """
    found: dict[str, Range] = {}
    for entry in entries:
        name = entry.source.name
        learnt = entry.split in ("sft_train", "reward_train", "preference_train")
        if learnt and (both := spread(found.get(name), entry.scores)):
            found[name] = both
    return found
