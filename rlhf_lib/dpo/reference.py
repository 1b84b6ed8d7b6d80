"""The reference log-probs of preference pairs, as DPO computes them, without TRL, which takes seconds to import."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.common import paths
from rlhf_lib.common.chunks import work_through
from rlhf_lib.common.rows import JsonObject
from rlhf_lib.dpo.data import Pair, encode
from rlhf_lib.models import hardware
from rlhf_lib.models.lengths import Lengths, Limit
from rlhf_lib.models.loading import check_length
from rlhf_lib.models.logprobs import Distribution, Response, rows_at_once, token_logprobs
from rlhf_lib.models.processes import shared_out
from rlhf_lib.models.templates import check_rows

PAIRS = {"train": paths.with_negatives("preference_train"), "validation": paths.split("preference_validation")}
COLUMNS = ("id", "prompt", "chosen", "rejected")
SIDES = ("chosen", "rejected")
REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
SHARED_COLUMNS = ("ref_chosen_shared_logps", "ref_rejected_shared_logps")


def reference_logprobs(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[dict[str, Any]],
    max_length: int,
    batch_size: int,
    split: str = "train",
    file: Path | None = None,
) -> list[JsonObject]:
    """The summed log-probs (nats) of each pair's answers under the policy, as DPO computes them: of all their tokens
    and, for `dpo.ld_alpha`, of as many as the pair's shorter answer has.

    A forward pass reads one answer of each of `batch_size` pairs. Answers are cut at `max_length` tokens, the prompt's
    included, as TRL's collator cuts them. Pairs whose prompt alone fills `max_length` tokens are left out, as they are
    in DPO. `file` gets the rows as they come; those that a killed run with the same arguments left there are kept.
    Every process must call this. A `ParamsError` where the chat template refuses a row, or no pair of split train is
    left.
    """
    check_length("reference.max_length", max_length, policy)
    kept = _encoded(tokenizer, pairs, Limit("reference.max_length", max_length), split)
    measured = partial(_measured, policy, tokenizer.pad_token_id, max_length, batch_size)
    return work_through(kept, rows_at_once(batch_size), measured, file, "Reference", f"{split} pair")


def _encoded(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[dict[str, Any]], limit: Limit, split: str
) -> list[tuple[str, Pair]]:
    """The pairs of which something is left within the limit, by id; all of them are held, at 4 bytes a token."""
    file, kept, lengths = PAIRS[split], [], []
    check_rows(tokenizer, (pair["prompt"] for pair in pairs), file)
    for number, pair in enumerate(pairs, start=1):
        tokens = encode(tokenizer, pair, file, number)
        fits = len(tokens.prompt) < limit.tokens
        lengths.append((tokens.tokens(), fits))
        if fits:
            kept.append((pair["id"], Pair(*(array("i", ids) for ids in tokens))))
    counted = Lengths.of(file, limit, lengths)
    if split == "train":
        counted.check_train()
    else:
        counted.check_validation()
    return kept


def _measured(
    policy: PreTrainedModel, pad_id: int, max_length: int, batch_size: int, pairs: Sequence[tuple[str, Pair]]
) -> list[JsonObject]:
    """A row of data/reference for each pair."""

    def measure(progress: str, part: Sequence[_Side]) -> list[tuple[float, float]]:
        prompts, responses = [side.prompt for side in part], [side.answer for side in part]
        found = token_logprobs(policy, prompts, responses, pad_id, Distribution(), batch_size, progress)
        return [(each.sum().item(), each[: side.shared].sum().item()) for each, side in zip(found, part, strict=True)]

    sides = [_sides(pair, max_length) for _, pair in pairs]
    with hardware.autocast():
        columns = [
            shared_out([of_pair[i] for of_pair in sides], partial(measure, name)) for i, name in enumerate(SIDES)
        ]
    names = [*REFERENCE_COLUMNS, *SHARED_COLUMNS]
    return [
        {"id": key, **dict(zip(names, (*whole, *shared), strict=True))}
        for (key, _), *both in zip(pairs, *columns, strict=True)
        for whole, shared in [zip(*both, strict=True)]
    ]


class _Side(NamedTuple):
    """An answer of a pair."""

    prompt: list[int]
    answer: Response
    shared: int  # tokens of the pair's shorter answer


def _sides(pair: Pair, max_length: int) -> list[_Side]:
    """Both answers, cut where the dialogue reaches `max_length` tokens."""
    answers = [list(answer[: max_length - len(pair.prompt)]) for answer in (pair.chosen, pair.rejected)]
    return [_Side(list(pair.prompt), Response(answer, True), min(map(len, answers))) for answer in answers]
