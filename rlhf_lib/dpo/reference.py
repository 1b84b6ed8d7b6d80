"""The reference log-probs of preference pairs, as DPO computes them, without TRL, which takes seconds to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.common import paths
from rlhf_lib.dpo.data import Pair, encode
from rlhf_lib.models import hardware
from rlhf_lib.models.lengths import Lengths, Limit
from rlhf_lib.models.loading import check_length
from rlhf_lib.models.logprobs import Distribution, Response, token_logprobs
from rlhf_lib.models.processes import shared_out
from rlhf_lib.models.templates import check_rows

PAIRS = {"train": paths.with_negatives("preference_train"), "validation": paths.split("preference_validation")}
COLUMNS = ("id", "prompt", "chosen", "rejected")
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
SHARED_COLUMNS = ("ref_chosen_shared_logps", "ref_rejected_shared_logps")


def reference_logprobs(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[dict[str, Any]],
    max_length: int,
    batch_size: int,
    split: str = "train",
) -> list[dict[str, Any]]:
    """The summed log-probs (nats) of each pair's answers under the policy, as DPO computes them: of all their tokens
    and, for `dpo.ld_alpha`, of as many as the pair's shorter answer has.

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
        (pair["id"], _sides(of_pair, max_length))
        for pair, of_pair, fits in zip(pairs, encoded, kept, strict=True)
        if fits
    ]

    def measure(part: Sequence[_Side]) -> list[tuple[float, float]]:
        prompts, responses = [side.prompt for side in part], [side.answer for side in part]
        pad_id, progress = tokenizer.pad_token_id, f"Reference, {split}"  # of chosen answers, then of rejected ones
        found = token_logprobs(policy, prompts, responses, pad_id, Distribution(), batch_size, progress)
        return [(each.sum().item(), each[: side.shared].sum().item()) for each, side in zip(found, part, strict=True)]

    with hardware.autocast():
        columns = [shared_out([sides[i] for _, sides in rows], measure) for i in range(len(REFERENCE_COLUMNS))]
    names = [*REFERENCE_COLUMNS, *SHARED_COLUMNS]
    return [
        {"id": key, **dict(zip(names, (*whole, *shared), strict=True))}
        for (key, _), *both in zip(rows, *columns, strict=True)
        for whole, shared in [zip(*both, strict=True)]
    ]


class _Side(NamedTuple):
    """An answer of a pair."""

    prompt: list[int]
    answer: Response
    shared: int  # tokens of the pair's shorter answer


def _sides(pair: Pair, max_length: int) -> list[_Side]:
    """Both answers, cut where the dialogue reaches `max_length` tokens."""
    answers = [answer[: max_length - len(pair.prompt)] for answer in (pair.chosen, pair.rejected)]
    return [_Side(pair.prompt, Response(answer, True), min(map(len, answers))) for answer in answers]
