"""Decoding the answers, batch by batch, with each batch kept as soon as it is made."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from tqdm import tqdm

from rlhf_lib.answering.decoding import Decoding
from rlhf_lib.answering.prompts import Asked
from rlhf_lib.answering.unfinished import Unfinished
from rlhf_lib.common.hub import one_line
from rlhf_lib.common.running import outer_fault
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.generation.decoding import batches_of
from rlhf_lib.generation.library import by_library
from rlhf_lib.generation.sampling import response_text
from rlhf_lib.models import frozen, templates
from rlhf_lib.models.chat import last_tokens, prompt_ids
from rlhf_lib.models.seeds import seeded
from rlhf_lib.models.stops import stop_ids
from rlhf_lib.talk import Policy

# They take padding before a prompt for a part of it. The first makes it likelier; the others matter where an answer may
# have that token.
READ_PADDING = ("encoder_repetition_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size")


class Answer(NamedTuple):
    """text: without what ended it. finished: false where it was cut off. ids: tokens, with the one that ended it."""

    text: str
    finished: bool
    ids: list[int]


def encode(policy: Policy, asked: Sequence[Asked], decoding: Decoding, cuts: bool) -> tuple[list[list[int]], list[int]]:
    """Token ids of the prompts, and how many tokens of each are left out. Those that do not fit beside an answer lose
    their beginning if `cuts`; else a `SystemExit` that names the first of them."""
    ids = []
    for one in asked:
        try:
            ids.append(prompt_ids(policy.tokenizer, one.prompt))
        except templates.TemplateFault as fault:
            raise ParamsError(f"{one.place}: {fault}") from None
    longest = decoding.max_new_tokens or 0
    room = policy.room(longest)
    if room is None:
        return ids, [0] * len(ids)
    long = [place for place, of_prompt in enumerate(ids) if len(of_prompt) > room]
    if long and not cuts:
        more = f" (so have {len(long) - 1} more)" if len(long) > 1 else ""
        raise ParamsError(
            f"{asked[long[0]].place}: the prompt has {len(ids[long[0]])} tokens, and {room} fit beside {longest} new "
            f"ones{more}; lower --max_new_tokens, shorten it, or give --too_long cut to leave out its beginning"
        )
    if long:
        print(f"{len(long)} of {len(ids)} prompts are longer than {room} tokens: their beginnings were cut off")
    fitting = [last_tokens(policy.tokenizer, of_prompt, room) for of_prompt in ids]
    return fitting, [len(whole) - len(fits) for whole, fits in zip(ids, fitting, strict=True)]


@torch.no_grad()
def decode(
    policy: Policy,
    ids: Sequence[list[int]],
    decoding: Decoding,
    seed: int,
    batch_size: int,
    unfinished: Unfinished,
) -> list[list[Answer]]:
    """The answers to each prompt, in the given order. Batches that `unfinished` has are not made again.

    batch_size: rows of a forward pass, with beams and copies. A batch's draws depend on the seed and its number, so the
    same command gives the same answers, whenever it was stopped.
    """
    batches = _batches(policy, ids, decoding, max(1, batch_size // decoding.rows))
    options = decoding.options()
    texts = options.pop("stop_strings", ())
    for number, rows in enumerate(tqdm(batches, desc="Answering", unit="batch")):
        if number in unfinished.rows:
            continue
        torch.manual_seed(seeded("answering", seed, number).initial_seed())
        with frozen.autocast(policy.model), _telling(), _without_word_of_masks():
            responses = by_library(policy.model, policy.tokenizer, [ids[row] for row in rows], texts, **options)
        made = [[response_text(policy.tokenizer, one), one.finished, one.ids] for one in responses]
        unfinished.add(number, made)
    found: dict[int, list[Answer]] = {}
    for number, rows in enumerate(batches):
        answers = [Answer(*one) for one in unfinished.rows[number]]
        found |= {row: answers[i * decoding.copies : (i + 1) * decoding.copies] for i, row in enumerate(rows)}
    return [found[row] for row in range(len(ids))]


@contextmanager
def _telling() -> Iterator[None]:
    """A context in which transformers decodes: what it refuses becomes a `ParamsError` of one line."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError) as error:
        if outer_fault(error):
            raise
        raise ParamsError(f"transformers cannot decode with these options: {one_line(error)}; change them") from None


@contextmanager
def _without_word_of_masks() -> Iterator[None]:
    """A context in which transformers asks for no attention mask.

    It is given one, but `generate()` drops it where no prompt of the batch is padded. The padding that models then
    find, and warn of, fills up rows that have ended: nothing that is kept follows on it.
    """
    logger = logging.getLogger("transformers.modeling_utils")

    def is_other(record: logging.LogRecord) -> bool:
        return "passing in an `attention_mask`" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def _batches(policy: Policy, ids: Sequence[list[int]], decoding: Decoding, size: int) -> list[list[int]]:
    """Prompts that are answered together: of similar length, or of one where an option would read padding."""
    pad_is_said = policy.tokenizer.pad_token_id in stop_ids(policy.model)
    reads_padding = READ_PADDING if pad_is_said else READ_PADDING[:1]
    pads = not any(name in decoding.options() for name in reads_padding)
    return batches_of(policy.model, [len(of_prompt) for of_prompt in ids], size, pads)
