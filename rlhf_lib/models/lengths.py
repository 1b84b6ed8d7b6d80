"""Rows that are longer than a trainer may read: how many are dropped and cut, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rlhf_lib.common.fitting import MANY, MOST, Fit, spread_sample
from rlhf_lib.common.launching import is_main
from rlhf_lib.common.rows import JsonObject
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models.chat import dialogue_and_start

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

SAMPLE = 500  # answers of which the tokens are counted


class Limit(NamedTuple):
    """How many tokens a row may have, and the param that says so, such as sft.max_length."""

    param: str
    tokens: int


@dataclass(frozen=True)
class Lengths:
    """What a limit does to the rows of a file.

    dropped: nothing to learn is left of these rows. cut: these lose a part. longest: tokens of the longest row, as far
    as it was read.
    """

    file: str
    limit: Limit
    rows: int
    dropped: int
    cut: int
    longest: int

    @classmethod
    def of(cls, file: str, limit: Limit, rows: Iterable[tuple[int, bool]]) -> Lengths:
        """Of each row its tokens, and whether something to learn is within the limit."""
        found = list(rows)
        return cls(
            file,
            limit,
            len(found),
            sum(not kept for _, kept in found),
            sum(kept and tokens > limit.tokens for tokens, kept in found),
            max((tokens for tokens, _ in found), default=0),
        )

    def check_train(self) -> None:
        """A `ParamsError` where nothing is left to learn from; a line where much is dropped or cut."""
        if self.rows == 0:
            raise no_rows(self.file)
        if self.dropped == self.rows:
            raise ParamsError(
                f"params.yaml: {self.limit.param}: none of the {self._rows()} of {self.file} is short enough to "
                f"learn from, at {self.limit.tokens} tokens; raise it: {self._longest()}"
            )
        self.tell()

    def check_validation(self) -> bool:
        """Whether there is something to validate on; a line where there is not, or where much is dropped or cut."""
        if self.rows > self.dropped:
            self.tell()
            return True
        too_long = f"none of its {self._rows()} is short enough, at {self.limit.tokens} tokens ({self.limit.param})"
        say(f"{self._stage()}: no validation: {self.file}: {too_long if self.rows else 'no rows'}")
        return False

    def tell(self) -> None:
        """A line where more than a fifth of the rows is dropped or cut."""
        if self.dropped + self.cut > MANY * self.rows:
            say(
                f"{self._stage()}: {self.limit.param}, {self.limit.tokens} tokens, is too short for many of the "
                f"{self._rows()} of {self.file}: {self.dropped:,} dropped, {self.cut:,} cut; {self._longest()}"
            )

    def _rows(self) -> str:
        return f"{self.rows:,} row{'s' * (self.rows != 1)}"

    def _stage(self) -> str:
        return self.limit.param.partition(".")[0]

    def _longest(self) -> str:
        more = "at least " if self.longest == self.limit.tokens + 1 else ""
        return f"the longest has {more}{self.longest:,} tokens"


def tell_long_answers(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[JsonObject], limit: Limit, penalty: float | None
) -> None:
    """A line where more than a fifth of the answers that SFT learnt, of a sample, would be cut off and penalised."""
    if penalty is None:
        return
    answers = []
    for row in spread_sample(rows, SAMPLE):
        dialogue, start = dialogue_and_start(tokenizer, row["prompt"], row["completion"][0]["content"])
        answers.append(len(dialogue) - start)
    fit = Fit.of(answers, limit.tokens)
    if fit.share > MANY:
        say(
            f"{limit.param.partition('.')[0]}: {limit.param}, {limit.tokens} tokens, is too short for "
            f"{100 * fit.share:.0f} % of the answers that SFT learnt, and what is cut off is penalised by {penalty:g}: "
            f"brevity is learnt first; {fit.enough} tokens would hold {100 * MOST:.0f} %"
        )


def no_rows(file: str) -> ParamsError:
    """What to say of a training file without rows, or without two answers that differ in score."""
    return ParamsError(f"{file}: no rows to learn from; load more, or change the shares of prepare in params.yaml")


def say(line: str) -> None:
    """Print a line once, however many processes train."""
    if is_main():
        print(line, flush=True)


def or_none(rows: Dataset, lengths: Lengths) -> Dataset | None:
    """Validation rows, or None where nothing is left of them: the trainer then validates nothing."""
    return rows if lengths.check_validation() else None
