"""Which of a prompt's candidates is learnt from: the one of the highest reward or, as a control, any.

Fine-tuning on the best of n answers is RAFT [Dong 2023, arXiv:2304.06767], the rejection sampling of Llama 2
[arXiv:2307.09288] and one step of ReST [arXiv:2308.08998]. The best of n are at most log n - (n - 1) / n nats from the
model that gave them [Beirami 2024, arXiv:2401.01879].
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import fmean

from rlhf_lib.common.rows import JsonObject, is_blank
from rlhf_lib.common.yaml import ParamsError


def usable(candidates: Sequence[JsonObject], n: int) -> list[JsonObject]:
    """Those of the first `n` candidates of a prompt that end, and say something: others would teach to be cut off."""
    if len(candidates) < n:
        raise ParamsError(
            f"params.yaml: rft.n: {n} answers are to be chosen from, and data/candidates has {len(candidates)}; raise "
            "candidates.n, and run dvc repro candidates"
        )
    return [one for one in candidates[:n] if one["finished"] and not is_blank(one["response"])]


def best(candidates: Sequence[JsonObject]) -> JsonObject:
    """The candidate of the highest reward, the first of several."""
    return max(candidates, key=lambda candidate: candidate["reward"])


def at_random(candidates: Sequence[JsonObject], seed: int) -> JsonObject:
    """Any of a prompt's candidates; which one depends on their number, the prompt's id and the seed alone."""
    return random.Random(f"{seed} {candidates[0]['id']}").choice(candidates)


def choose(
    candidates: Iterable[JsonObject], n: int, seed: int | None = None
) -> tuple[list[JsonObject], dict[str, float | None]]:
    """One of the first `n` candidates of each prompt as a row of prompt and completion, and what `summary` says.

    The best ones or, with a seed, any. A prompt without a usable candidate gives no row. Those of a prompt must stand
    together, in the order in which they were drawn.
    """
    rows, groups, prompts = [], list[list[JsonObject]](), 0
    for _, of_prompt in groupby(candidates, key=lambda candidate: candidate["id"]):
        prompts += 1
        if found := usable(list(of_prompt), n):
            one = best(found) if seed is None else at_random(found, seed)
            groups.append(found)
            completion = [{"role": "assistant", "content": one["response"]}]
            rows.append({**{key: one[key] for key in ("id", "source", "prompt")}, "completion": completion})
            rows[-1] |= {key: one[key] for key in ("draw", "reward")}
    return rows, summary(rows, groups, prompts)


def summary(
    rows: Sequence[JsonObject], groups: Sequence[Sequence[JsonObject]], prompts: int
) -> dict[str, float | None]:
    """Prompts without a usable candidate; the mean reward of the chosen ones, and that of all that could be."""
    return {
        "prompts_without": prompts - len(rows),
        "reward_chosen": fmean(row["reward"] for row in rows) if rows else None,
        "reward_candidates": fmean(fmean(one["reward"] for one in group) for group in groups) if rows else None,
    }
