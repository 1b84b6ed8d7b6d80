"""What the rows of a batch have said so far, on the CPU, and where each of them ends."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.generation import StopStringCriteria

from rlhf_lib.generation.sampling import Sampling
from rlhf_lib.models.logprobs import Response
from rlhf_lib.models.support import Support, joined, of_bits, of_padded


class Said:
    """The tokens of a batch's rows. A row may go on behind its end: what it says there is left out."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, rows: int, sampling: Sampling, stop_ids: Sequence[int]
    ) -> None:
        self.rows = torch.arange(rows)  # those still in the batch
        self.tokens = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.long)
        self.count = 0  # tokens of each row
        self.lengths = torch.zeros(rows, dtype=torch.long)  # of those that have come to their end, else 0
        self.stopped = torch.zeros(rows, dtype=torch.bool)  # by a token, not by a text
        self.supports: list[list[Support]] = [[] for _ in range(rows)]
        self.stop_ids = torch.tensor(stop_ids, dtype=torch.long)
        self.text_ends = text_ends(tokenizer, sampling.stop_strings)

    def note(self, tokens: Sequence[Tensor], supports: Sequence[Tensor]) -> Tensor:
        """Take the next steps' (b,) tokens, and the (b, K) ones that each was drawn from, or (b, W) `as_bits`; which of
        the b places go on.

        This waits for the device, once.
        """
        new, supports_of_places = _fetched(tokens, supports)
        first, self.count = self.count, self.count + new.size(1)
        self.tokens[self.rows, first : self.count] = new
        is_going_on = self.lengths[self.rows] == 0
        if supports_of_places is not None:
            self._keep_supports(supports_of_places, is_going_on)
        is_stop = torch.isin(new, self.stop_ids)
        is_end = is_stop if self.text_ends is None else is_stop | self._is_end_of_text(first)
        place = is_end.int().argmax(dim=1, keepdim=True)  # the first
        ends = is_going_on & is_end.any(dim=1)
        self.lengths[self.rows[ends]] = first + place[ends].squeeze(1) + 1
        self.stopped[self.rows[ends]] = is_stop.gather(1, place)[ends].squeeze(1)
        return (is_going_on & ~ends).nonzero().squeeze(1)

    def keep(self, places: Tensor) -> None:
        """Go on with these places of the batch alone."""
        self.rows = self.rows[places]

    def responses(self) -> list[Response]:
        """Each row, up to its end."""
        finished = self.lengths > 0
        lengths = self.lengths.where(finished, self.count)
        supports = [
            joined(pieces).first(length) if pieces else None
            for pieces, length in zip(self.supports, lengths.tolist(), strict=True)
        ]
        ids = [row[:length] for row, length in zip(self.tokens.tolist(), lengths.tolist(), strict=True)]
        parts = zip(ids, finished.tolist(), supports, self.stopped.tolist(), strict=True)
        return [Response(*of_row) for of_row in parts]

    def _is_end_of_text(self, first: int) -> Tensor:
        """(b, n) where one of the stop strings ends with, or in, one of the tokens from place `first` on."""
        assert self.text_ends is not None
        tokens = self.tokens[self.rows]
        ends = [self.text_ends(tokens[:, : place + 1], None) for place in range(first, self.count)]
        return torch.stack(ends, dim=1)

    def _keep_supports(self, of_places: Tensor, is_going_on: Tensor) -> None:
        read = of_bits if of_places.dtype == torch.uint8 else of_padded
        for place in is_going_on.nonzero().squeeze(1).tolist():
            self.supports[self.rows[place]].append(read(of_places[place]))


def _fetched(tokens: Sequence[Tensor], supports: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """(b, n) tokens of n steps and, if there are any, their (b, n, K) supports, on the CPU: one copy, which waits."""
    new = torch.stack(list(tokens), dim=1)
    if not supports:
        return new.cpu(), None
    of_places = torch.stack(list(supports), dim=1)
    both = torch.cat([new.unsqueeze(2).view(torch.uint8), of_places.view(torch.uint8)], dim=2).cpu()
    ids, rest = (part.contiguous() for part in both.tensor_split([new.element_size()], dim=2))
    return ids.view(new.dtype).squeeze(2), rest.view(of_places.dtype)


def text_ends(tokenizer: PreTrainedTokenizerBase, stop_strings: Sequence[str]) -> StopStringCriteria | None:
    """What finds the rows that end with one of these texts, or in which the last token has its end; None without any.

    It is kept: to make one looks at each token of the vocabulary, seconds of 150,000. transformers looks anew wherever
    the vocabulary comes in another order than before, which it mostly does.
    """
    return _text_ends(tokenizer, len(tokenizer), tuple(stop_strings)) if stop_strings else None


@lru_cache(maxsize=4)
def _text_ends(tokenizer: PreTrainedTokenizerBase, size: int, stop_strings: tuple[str, ...]) -> StopStringCriteria:
    """`text_ends`, where tokens may be added to a tokenizer."""
    return StopStringCriteria(tokenizer, list(stop_strings))
