"""The reference log-probs of preference pairs, as DPO computes them, without TRL, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.common import paths
from rlhf_lib.common.rows import Message
from rlhf_lib.models import hardware
from rlhf_lib.models.chat import answer_start, dialogue_ids, prompt_ids
from rlhf_lib.models.loading import check_length
from rlhf_lib.models.logprobs import Distribution, Response, sequence_logprobs
from rlhf_lib.models.processes import shared_out

PAIRS = {"train": paths.with_negatives("preference_train"), "validation": paths.split("preference_validation")}
COLUMNS = ("id", "prompt", "chosen", "rejected")
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")


def reference_logprobs(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[dict[str, Any]],
    max_length: int,
    batch_size: int = 64,
) -> list[dict[str, Any]]:
    """The summed log-probs (nats) of each pair's answers under the policy, as DPO computes them.

    Answers are cut at `max_length` tokens, the prompt's included, as TRL's collator cuts them. Pairs whose prompt alone
    fills `max_length` tokens are left out, as they are in DPO.
    """
    check_length("reference.max_length", max_length, policy)

    def encoded(pair: dict[str, Any]) -> tuple[list[int], list[Response]]:
        """The tokens of a pair's prompt and of both answers."""
        prompt: list[Message] = pair["prompt"]
        dialogues = [dialogue_ids(tokenizer, prompt, pair[answer][0]["content"]) for answer in ("chosen", "rejected")]
        shared = prompt_ids(tokenizer, prompt)
        start = min(answer_start(shared, dialogue) for dialogue in dialogues)
        return shared[:start], [Response(dialogue[start:max_length], True) for dialogue in dialogues]

    rows = [(pair["id"], *encoded(pair)) for pair in pairs]
    rows = [row for row in rows if len(row[1]) < max_length]

    def measure(part: Sequence[tuple[list[int], Response]]) -> list[float]:
        prompts, responses = [prompt for prompt, _ in part], [response for _, response in part]
        return sequence_logprobs(policy, prompts, responses, tokenizer.pad_token_id, Distribution(1.0), batch_size)

    with hardware.autocast():
        columns = [
            shared_out([(prompt, answers[side]) for _, prompt, answers in rows], measure)
            for side in range(len(REFERENCE_COLUMNS))
        ]
    return [
        {"id": row[0], **dict(zip(REFERENCE_COLUMNS, both, strict=True))}
        for row, *both in zip(rows, *columns, strict=True)
    ]
