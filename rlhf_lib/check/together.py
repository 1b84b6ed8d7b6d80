"""Faults between sections: each section holds, but not with the others. Nothing is read but the params."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rlhf_lib.base.params import BaseParams
from rlhf_lib.candidates.params import CandidatesParams
from rlhf_lib.check.patterns import too_slow
from rlhf_lib.common import paths
from rlhf_lib.common.policies import METHODS
from rlhf_lib.common.schema import shown
from rlhf_lib.data.load.params import LoadParams
from rlhf_lib.data.load.readers import READERS
from rlhf_lib.data.prepare.params import PrepareParams
from rlhf_lib.data.prepare.roles import possible_roles
from rlhf_lib.demo.grammar import INSTRUCTIONS
from rlhf_lib.evaluation.params import BestOfNParams, EvaluateParams
from rlhf_lib.generation.params import LEAST_PROMPT
from rlhf_lib.ppo.params import PPOParams
from rlhf_lib.reward.params import JudgeParams, RewardParams
from rlhf_lib.rft.params import RFTParams

START = (paths.BASE, paths.SFT)  # of a reward model

Rule = Callable[..., Iterator[str]]


def faults(sections: Mapping[str, Any]) -> Iterator[str]:
    """Every fault between the sections, `section.key: ...`; a rule whose sections are not all there is left out."""
    for rule, names in RULES.items():
        if all(name in sections for name in names):
            yield from rule(*(sections[name] for name in names))


def mixture(load: LoadParams, prepare: PrepareParams) -> Iterator[str]:
    """Sources that are not there, and roles that their rows cannot have. What no source gives is left out later."""
    able = {source.name: possible_roles(READERS[source.reader].roles) for source in load.sources}
    for name, entry in prepare.mixture.items():
        if name not in able:
            yield f"prepare.mixture.{name}: no source of that name; load.sources has: {', '.join(able)}"
            continue
        for role in entry.roles or ():
            if role not in able[name]:
                can = f"its rows can have: {', '.join(able[name])}"
                yield f"prepare.mixture.{name}.roles: the source cannot have the role {role}; {can}"


def instructions(load: LoadParams) -> Iterator[str]:
    """More of the demo than there is."""
    if load.instructions > len(INSTRUCTIONS) and any(source.reader == "demo" for source in load.sources):
        most = f"must be at most {len(INSTRUCTIONS)}, which is all that the demo has"
        yield f"load.instructions: {most}; got {load.instructions}"


def tested(load: LoadParams, evaluate: EvaluateParams) -> Iterator[str]:
    """Sources of the test that are not there: `evaluate`, after all training, would find no row of theirs."""
    names = [source.name for source in load.sources]
    for name in evaluate.sources:
        if name.partition("/")[0] not in names:  # hh/helpful-base is a part of hh
            yield f"evaluate.sources: no source {shown(name)}; load.sources has: {', '.join(names)}"


def candidates(best_of_n: BestOfNParams, evaluate: EvaluateParams) -> Iterator[str]:
    """Several answers that would all be the same."""
    if best_of_n.n and evaluate.temperatures[0] == 0:
        yield (
            "best_of_n.n: the answers are drawn at the first of evaluate.temperatures, which is 0, so that all of a "
            "prompt's are the same; put a temperature above 0 first, or set best_of_n.n to []"
        )


def controls(methods: Any) -> Iterator[str]:
    """A control without its method, whose stages it needs."""
    for name, policy in METHODS.items():
        if policy.section and getattr(methods, name) and not getattr(methods, policy.section):
            told = f"is the control of {policy.section}, and needs what that one does"
            yield f"methods.{name}: {told}; set methods.{policy.section} to true too"


def of_candidates(candidates: CandidatesParams, rft: RFTParams) -> Iterator[str]:
    """More candidates to choose from than there are drawn."""
    if rft.n > candidates.n:
        most = f"must be at most candidates.n, which is {candidates.n}"
        yield f"rft.n: {most}; got {rft.n}; raise candidates.n, or lower it"


def critic(reward: RewardParams, ppo: PPOParams) -> Iterator[str]:
    """A critic of its own that starts from rewards within bounds."""
    if ppo.has_own_critic and reward.is_bounded:
        yield (
            f"ppo.critic: {ppo.critic} starts from the reward model, whose rewards are bounded (reward.bounded), as "
            "values are not; set it to shared"
        )


def lengths(
    methods: Any,
    base: BaseParams,
    sft: Any,
    reward: JudgeParams,
    judge: JudgeParams,
    reference: Any,
    rft: RFTParams,
    kto: Any,
) -> Iterator[str]:
    """Rows longer than the context of a fresh model."""
    if base.model_name_or_path is not None:
        return
    wanted = ({"rft": rft} if methods.rft else {}) | ({"kto": kto} if methods.kto else {})
    sections = {"sft": sft, "reference": reference, **wanted}
    limits = {f"{name}.max_length": section.max_length for name, section in sections.items()}
    limits |= {
        f"{name}.max_length": section.max_length
        for name, section in {"reward": reward, "judge": judge}.items()
        if section.model_name_or_path in START
    }
    for name, length in limits.items():
        if length > base.n_positions:
            yield f"{name}: {length} tokens, but the fresh model has base.n_positions: {base.n_positions}; lower it"


def answers(
    methods: Any,
    base: BaseParams,
    negatives: Any,
    ppo: PPOParams,
    candidates: CandidatesParams,
    evaluate: EvaluateParams,
    attainable: Any,
) -> Iterator[str]:
    """Answers that leave no room for a prompt in the context of a fresh model."""
    if base.model_name_or_path is None:
        sections = {"methods": methods, "negatives": negatives, "ppo": ppo, "candidates": candidates}
        sections |= {"evaluate": evaluate, "attainable": attainable}
        yield from no_room(sections, base.n_positions, f"base.n_positions: {base.n_positions}")


def no_room(sections: Mapping[str, Any], context: int, told: str) -> Iterator[str]:
    """Answers of the policies beside which a prompt has no room in their context of so many tokens, `told` in words: by
    the sections that are there."""
    methods, keys = sections.get("methods"), {"evaluate": "max_new_tokens"}
    if getattr(methods, "ppo", True) or getattr(sections.get("attainable"), "n", 0):
        keys["ppo"] = "response_length"
    if getattr(methods, "rft", False):
        keys["candidates"] = "max_new_tokens"
    if getattr(sections.get("negatives"), "model_name_or_path", None) in START:
        keys["negatives"] = "max_new_tokens"
    for name, key in keys.items():
        if name in sections and (tokens := getattr(sections[name], key)) > context - LEAST_PROMPT:
            yield f"{name}.{key}: {tokens} tokens leave no room for a prompt in {told}; lower it"


def memory(base: BaseParams) -> Iterator[str]:
    """A fresh model whose weights alone are more than this machine's memory: Linux would kill the stage."""
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if base.model_name_or_path is None and 4 * base.weights > here:
        sizes = f"{4 * base.weights / 2**30:.0f} GiB, and this machine has {here / 2**30:.0f} GiB"
        yield f"base.n_embd: the weights of the fresh model would take {sizes}; make it or its layers fewer"


def drop_patterns(prepare: PrepareParams) -> Iterator[str]:
    """Regular expressions that would take for ever."""
    for pattern in too_slow(prepare.drop_patterns):
        yield (
            f"prepare.drop_patterns: {shown(pattern)} takes seconds on a short text; let no part that repeats, such "
            "as a+, be repeated again, as in (a+)+"
        )


RULES: dict[Rule, tuple[str, ...]] = {
    mixture: ("load", "prepare"),
    instructions: ("load",),
    tested: ("load", "evaluate"),
    candidates: ("best_of_n", "evaluate"),
    controls: ("methods",),
    of_candidates: ("candidates", "rft"),
    memory: ("base",),
    lengths: ("methods", "base", "sft", "reward", "judge", "reference", "rft", "kto"),
    answers: ("methods", "base", "negatives", "ppo", "candidates", "evaluate", "attainable"),
    drop_patterns: ("prepare",),
    critic: ("reward", "ppo"),
}
