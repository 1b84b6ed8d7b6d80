"""What the rows of each source are used for, and which part of the prompts each use takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Literal

from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.data.prepare.derive import PairRule
from rlhf_lib.data.prepare.entries import SourceInfo
from rlhf_lib.data.prepare.params import MixtureParams, PrepareParams, Role

Use = Literal["sft", "reward", "dpo", "kto", "judge", "prompts"]  # a role, with `preference` taken apart

PREFERENCES: tuple[Use, ...] = ("reward", "dpo", "judge")  # what the role `preference` stands for
TESTED = frozenset({"preference", *PREFERENCES, "kto", "test"})  # the roles whose prompts also fill the test split
OF_FILE: dict[str, Use] = {  # what the files of data/splits are for, by the first word of their names
    "sft": "sft",
    "reward": "reward",
    "groups": "reward",
    "preference": "dpo",
    "thumbs": "kto",
    "prompts": "prompts",
    "judge": "judge",
}


def check_mixture(params: PrepareParams, sources: Sequence[SourceInfo]) -> None:
    """A `ParamsError` where the mixture names a source that is not there, or a role that its rows cannot fill."""
    known = {source.name: source for source in sources}
    for name, entry in params.mixture.items():
        where = f"{PARAMS_FILE}: prepare.mixture.{name}"
        if name not in known:
            raise ParamsError(f"{where}: no source of that name; there are: {', '.join(known)}")
        possible = possible_roles(known[name].roles)
        for role in entry.roles or ():
            if role not in possible:
                raise ParamsError(
                    f"{where}.roles: the source cannot have the role {role}; it can: {', '.join(possible)}"
                )


def possible_roles(of_rows: Sequence[str]) -> list[str]:
    """The roles that a mixture may give to a source whose rows can have `of_rows`."""
    taken_apart: tuple[str, ...] = (*PREFERENCES, "kto") if "preference" in of_rows else ()
    return list(dict.fromkeys((*of_rows, *taken_apart, "test")))


def settle(sources: Sequence[SourceInfo], params: PrepareParams) -> list[SourceInfo]:
    """The sources with the roles that their rows have: those of the mixture, else all that the rows can fill.

    Without preferences there is no reward model for PPO, so answers that the mixture says nothing of are all for SFT,
    but for those that KTO learns from, on the same prompts.
    Where no role of a source fills the test split, the prompts of SFT do, or else those of PPO.
    """
    given = {source.name: list(params.mixture.get(source.name, MixtureParams()).roles or ()) for source in sources}
    roles = {source.name: given[source.name] or list(source.roles) for source in sources}
    if not any(use in PREFERENCES for of_source in roles.values() for use in uses(of_source)):
        for name, of_source in roles.items():
            if not given[name] and "sft" in of_source and "kto" not in of_source:
                roles[name] = [role for role in of_source if role != "prompts"]
    if not any(TESTED & {*of_source} for of_source in roles.values()):
        first: Role = "sft" if any("sft" in of_source for of_source in roles.values()) else "prompts"
        roles = {name: [*own, "test"] if first in own else own for name, own in roles.items()}
    return [replace(source, roles=roles[source.name]) for source in sources]


def uses(roles: Collection[Role]) -> list[Use]:
    """What rows with these roles are used for in training, each once. DPO's pairs, taken apart, are KTO's too."""
    taken_apart = (PREFERENCES if role == "preference" else (role,) for role in roles if role != "test")
    each = (use for several in taken_apart for use in several)
    return list(dict.fromkeys(both for use in each for both in (("dpo", "kto") if use == "dpo" else (use,))))


def left_of(roles: Collection[Role], taken: Collection[Role]) -> list[Role]:
    """The roles that a row has for a prompt which earlier sources have with the roles `taken`.

    A prompt is tested once, and what is for the test alone stays so. None where only the prompt is left, without
    answers to learn from: it would take those of the other source away from their use.
    """
    if not taken:
        return list(roles)
    held = {*uses(taken), *(TESTED if TESTED & {*taken} else ())}
    left: list[Role] = [use for use in uses(roles) if use not in held]
    return left if uses(taken) and {*left} - {"prompts"} else []


def parts_of(role: Role, params: PrepareParams) -> list[str]:
    """The parts whose rows are used for `role`: one without a share of its own lives with the preference rows.

    None for `test`, which is no part.
    """
    own = {"sft": params.sft_share, "reward": params.reward_share, "judge": params.judge_share}
    return list(dict.fromkeys(use if own.get(use) else "preference" for use in uses([role])))


def shares_of(roles: Collection[Role], params: PrepareParams) -> dict[str, float]:
    """The parts that prompts with these roles can be in, each with its share of the params."""
    shares = {
        "sft": params.sft_share,
        "reward": params.reward_share,
        "preference": params.preference_share,
        "judge": params.judge_share,
    }
    wanted = {part for role in roles for part in parts_of(role, params)}
    return {part: share for part, share in shares.items() if share and part in wanted}


def split_shares(roles: Collection[Role], params: PrepareParams) -> dict[str, float]:
    """How likely a prompt with these roles is in each split; their sum is 1."""
    parts = shares_of(roles, params)
    test = (params.test_share if parts else 1.0) if TESTED & {*roles} else 0.0
    halves = {"train": 1 - params.validation_share, "validation": params.validation_share}
    rest = (1 - test) / (sum(parts.values()) or 1.0)
    found = {f"{part}_{half}": rest * share * of for part, share in parts.items() for half, of in halves.items()}
    return {**found, "test": test} if test else found


def has_use(split: str, roles: Collection[Role], params: PrepareParams) -> bool:
    """Whether rows with these roles are used in a split."""
    if split == "test":
        return bool(TESTED & {*roles})
    return split.partition("_")[0] in shares_of(roles, params)


def split_of_file(name: str, params: PrepareParams) -> str:
    """The split whose rows are in a file of data/splits: that of groups_train is reward_train, or preference_train."""
    part, _, half = name.partition("_")
    return f"{parts_of(OF_FILE[part], params)[0]}_{half}" if half else name


def pair_rule(source: SourceInfo, params: PrepareParams) -> PairRule:
    """Which responses of the source's rows are pairs."""
    own = params.mixture.get(source.name, MixtureParams())
    # of labels, 1 and 0, a gap in the units of other sources says nothing
    gap = own.min_score_gap if own.min_score_gap is not None else 0.0 if source.labels else params.min_score_gap
    ratio = own.min_score_ratio or (None if source.labels else params.min_score_ratio)
    return PairRule(params.pair_rule, gap, ratio, params.max_pairs)
