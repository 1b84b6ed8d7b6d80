"""The reference log-probs of preference pairs, as DPO computes them, without TRL, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.common import paths
from rlhf_lib.dpo.data import Pair, encode
from rlhf_lib.models import hardware
from rlhf_lib.models.lengths import Lengths, Limit
from rlhf_lib.models.loading import check_length
from rlhf_lib.models.logprobs import Response, sequence_logprobs
from rlhf_lib.models.processes import shared_out
from rlhf_lib.models.templates import check_rows

PAIRS = {"train": paths.with_negatives("preference_train"), "validation": paths.split("preference_validation")}
COLUMNS = ("id", "prompt", "chosen", "rejected")
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")


def reference_logprobs(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[dict[str, Any]],
    max_length: int,
    batch_size: int,
    split: str = "train",
) -> list[dict[str, Any]]:
    """The summed log-probs (nats) of each pair's answers under the policy, as DPO computes them.

    A forward pass reads one answer of each of `batch_size` pairs. Answers are cut at `max_length` tokens, the prompt's
    included, as TRL's collator cuts them. Pairs whose prompt alone fills `max_length` tokens are left out, as they are
    in DPO. A `ParamsError` where the chat template refuses a row, or no pair of split train is left.
    """
    check_length("reference.max_length", max_length, policy)
    file = PAIRS[split]
    check_rows(tokenizer, (pair["prompt"] for pair in pairs), file)
    encoded = [encode(tokenizer, pair, file, number) for number, pair in enumerate(pairs, start=1)]
    kept = [len(pair.prompt) < max_length for pair in encoded]
    counted = ((pair.tokens(), fits) for pair, fits in zip(encoded, kept, strict=True))
    lengths = Lengths.of(file, Limit("reference.max_length", max_length), counted)
    if split == "train":
        lengths.check_train()
    else:
        lengths.check_validation()
    rows = [
        (pair["id"], of_pair.prompt, [_cut(of_pair, answer, max_length) for answer in of_pair[1:]])
        for pair, of_pair, fits in zip(pairs, encoded, kept, strict=True)
        if fits
    ]

    def measure(part: Sequence[tuple[list[int], Response]]) -> list[float]:
        prompts, responses = [prompt for prompt, _ in part], [response for _, response in part]
        return sequence_logprobs(policy, prompts, responses, tokenizer.pad_token_id, batch_size=batch_size)

    with hardware.autocast():
        columns = [
            shared_out([(prompt, answers[side]) for _, prompt, answers in rows], measure)
            for side in range(len(REFERENCE_COLUMNS))
        ]
    return [
        {"id": row[0], **dict(zip(REFERENCE_COLUMNS, both, strict=True))}
        for row, *both in zip(rows, *columns, strict=True)
    ]


def _cut(pair: Pair, answer: list[int], max_length: int) -> Response:
    return Response(answer[: max_length - len(pair.prompt)], True)
