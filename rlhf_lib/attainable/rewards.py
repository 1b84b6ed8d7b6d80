"""What PPO's reward functions say of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlhf_lib.common import paths
from rlhf_lib.common.rows import JsonObject
from rlhf_lib.evaluation.samples import Sample
from rlhf_lib.models.processes import shared_out
from rlhf_lib.ppo.data import columns_of
from rlhf_lib.ppo.rewards import RewardFunctions


def put(
    samples: Sequence[Sample],
    rows: Sequence[JsonObject],
    tokenizer: PreTrainedTokenizerBase,
    reward_funcs: Sequence[str],
    reward_weights: Sequence[float] | None,
    normalize_rewards: bool,
    batch_size: int,
) -> None:
    """Put `total`, the weighted sum of PPO's reward functions, into samples of answers to the prompts of `rows`.

    The three params are PPO's. What the samples have as `reward` is not computed again. Functions get the columns of
    the rows, as in PPO, and the answers' tokens as the tokenizer reads their text; trainer_state is None.
    """
    if [*reward_funcs] == [paths.REWARD] and normalize_rewards:
        [weight] = reward_weights or [1.0]
        for sample in samples:
            sample["total"] = weight * sample["reward"]
        return
    functions = RewardFunctions.load(reward_funcs, reward_weights, normalize_rewards, batch_size)
    # of a test row; its answers are no column of the rows that PPO reads
    of_prompt = {row["id"]: {key: value for key, value in row.items() if key != "responses"} for row in rows}
    names = columns_of(of_prompt.values())
    functions.check(names)
    # an answer that was sampled several times is scored once
    answers = {(sample["id"], sample["response"]): sample for sample in samples}

    def rewards(asked: Sequence[tuple[str, str]]) -> list[float]:
        mine = [of_prompt[prompt] for prompt, _ in asked]
        texts = [text for _, text in asked]
        columns: Mapping[str, list[Any]] = {
            **{name: [row.get(name) for row in mine] for name in names},
            "completion_ids": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts],
        }
        return functions([row["prompt"] for row in mine], texts, columns).total

    totals = dict(zip(answers, shared_out([*answers], rewards), strict=True))
    for sample in samples:
        sample["total"] = totals[sample["id"], sample["response"]]
