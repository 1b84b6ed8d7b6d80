"""What pairs teach beside quality: length, lists and other Markdown, refusals, and the place in the file.

Whoever compares two answers likes some of these for their own sake, and what learns from the pairs learns that too:
much of what RLHF gains by a reward model can be length [Singhal 2023, arXiv:2310.03716]. Numbers can't say which part
of it is quality (a list may be what was asked for); they say what to look at.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rlhf_lib.common.few import FEW, few
from rlhf_lib.measure.estimates import of_sums, ratio

SPLITS = ("preference_train", "reward_train", "judge_train")  # the pairs that something learns from
RAREST = 0.05  # share of the pairs that must differ in a trait before it is worth a warning
SORTED = 0.99  # share of pairs whose first answer won from which the file is taken to list the better one first
HELP = (
    r"(?:help|assist|answer|provide|do|comply|fulfil|give|share|discuss|create|write|generate|support|say|tell|engage)"
)
CANT = r"(?:can['’]?t|can ?not|won['’]?t|unable|not able|must decline)"
REFUSAL = (
    rf"(?i)^\W*(?:(?:i['’]?m|i am)(?: \w+)? sorry,? but|sorry,? but|i apologi[sz]e,? but|unfortunately,? i {CANT}"
    rf"|i {CANT} (?:\w+ ){{0,2}}{HELP}\b|(?:i['’]m|i am) (?:unable|not able)\b"
    rf"|as an? (?:\w+ ){{0,4}}(?:ai|model|assistant)\b.{{0,60}}{CANT})"
)


class Trait(NamedTuple):
    """What an answer may have more of than another: a match of a pattern, or, without a pattern, characters.

    having, lacking: the answer with more of it, and the one with less, as they are called.
    large: how far from one half the share must be that the answer with more of it wins, for a warning. It is less for
    length, in which nearly all pairs differ.
    drop: what to put into prepare.drop_patterns to be rid of it.
    """

    name: str
    having: str
    lacking: str
    pattern: str | None = None
    large: float = 0.1
    drop: str = ""

    def of(self, text: str) -> int:
        """How much of it a text has."""
        # With a line end before it, each line begins with one, which is found sooner than ^ is.
        return len(text) if self.pattern is None else int(re.search(self.pattern, f"\n{text}") is not None)


LIST = r"\n[ \t]*(?:[-*+•]|\d+[.)])[ \t].*\n+[ \t]*(?:[-*+•]|\d+[.)])[ \t]"
HEADING = r"\n#{1,6}[ \t]"
BOLD = r"\*\*[^\s*][^*\n]*\*\*"
LENGTH = Trait("length", "the longer answer", "the shorter answer", large=0.05)
REFUSALS = Trait(
    "refusals", "the one that refuses", "the one that complies", REFUSAL, drop=r"(?i)^\W*(i.m sorry|i can.?t|as an ai)"
)
TRAITS = (
    LENGTH,
    Trait("lists", "the one with a list", "the one without a list", LIST, drop=r"(?m)^\s*([-*+•]|\d+[.)])\s"),
    Trait("headings", "the one with a heading", "the one without a heading", HEADING, drop=r"(?m)^#{1,6}\s"),
    Trait("bold", "the one with bold words", "the one without bold words", BOLD, drop=BOLD),
    REFUSALS,
)


class Share(NamedTuple):
    """How often one side wins, its standard error over prompts, and how many pairs and prompts that rests on."""

    value: float
    se: float | None
    pairs: int
    prompts: int

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} %" if self.se is None else f"{100 * self.value:.1f} ± {100 * self.se:.1f} %"

    @property
    def other(self) -> Share:
        """That of the other side."""
        return self._replace(value=1 - self.value)

    def large(self, distance: float) -> bool:
        """Whether it is that far from one half, and by no chance: by two standard errors, of 30 prompts or more."""
        away = abs(self.value - 0.5)
        return away >= distance and self.prompts >= FEW and self.se is not None and away >= 2 * self.se


def share(counts: Iterable[Sequence[float]]) -> Share | None:
    """The share of (wins, wins and losses) by prompt; None without any."""
    kept = [pair for pair in counts if pair[1]]
    value, se = of_sums(kept, ratio)
    return None if value is None else Share(value, se, int(sum(total for _, total in kept)), len(kept))


class Pairs:
    """What was counted of the pairs of one split."""

    def __init__(self) -> None:
        self.pairs: dict[str, int] = defaultdict(int)  # by the row that they are from
        self.wins: dict[str, dict[str, list[int]]] = {trait.name: defaultdict(lambda: [0, 0]) for trait in TRAITS}
        self.having: dict[str, list[int]] = {trait.name: [0, 0] for trait in TRAITS}  # chosen ones, rejected ones

    def counted(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The records as they come, each counted."""
        for record in records:
            row, chosen, rejected = record["id"].rpartition("-")[0], record["chosen"][-1], record["rejected"][-1]
            self.add(row, chosen["content"], rejected["content"])
            yield record

    def add(self, row: str, chosen: str, rejected: str) -> None:
        """Count a pair of a row."""
        self.pairs[row] += 1
        for trait in TRAITS:
            won, lost = trait.of(chosen), trait.of(rejected)
            having = self.having[trait.name]
            having[0], having[1] = having[0] + bool(won), having[1] + bool(lost)
            if won != lost:
                counts = self.wins[trait.name][row]
                counts[0], counts[1] = counts[0] + (won > lost), counts[1] + 1

    @property
    def total(self) -> int:
        """How many pairs there are."""
        return sum(self.pairs.values())

    def won(self, trait: Trait) -> Share | None:
        """How often the answer that has more of it won; None where no pair differs in it."""
        return share(self.wins[trait.name].values())

    def accuracy(self, trait: Trait) -> Share | None:
        """How many of all pairs the trait alone orders as they are, a tie being half of one."""
        wins = self.wins[trait.name]
        found = ((row, pairs, *wins.get(row, (0, 0))) for row, pairs in self.pairs.items())
        return share([(won + (pairs - differ) / 2, pairs) for _, pairs, won, differ in found])


def first_won(rows: Iterable[Mapping[str, Any]]) -> dict[str, Share]:
    """By source, how often the earlier of two answers to a prompt has the better score, in the order of the file."""
    counts: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in rows:
        scores = [response["score"] for response in row["responses"] if response["score"] is not None]
        differing = [(one > other) for place, one in enumerate(scores) for other in scores[place + 1 :] if one != other]
        if differing:
            counts[row["source"].partition("/")[0]].append((sum(differing), len(differing)))
    shares = {source: share(of_rows) for source, of_rows in counts.items()}
    return {source: found for source, found in shares.items() if found is not None}


def told(splits: Mapping[str, Pairs], places: Mapping[str, Share]) -> Iterator[str]:
    """The lines on what the pairs teach, and a line of warning on what is both large and no chance; none without pairs.

    places: `first_won` of the sources.
    """
    named = _without_doubles(splits)
    if not named:
        return
    yield "What the pairs teach beside quality; ± is one standard error over prompts:"
    for name, pairs in named.items():
        right = f"{pairs.accuracy(LENGTH)} are in the right order{few(len(pairs.pairs))}"
        yield f"  {pairs.total:,} pairs of {name}; by length alone, {right}"
        yield f"    {'':24}{'won':>14}{'of pairs that differ':>22}{'chosen':>10}{'rejected with it':>18}"
        yield from (line for trait in TRAITS if (line := _line(pairs, trait)))
    for source, won in places.items():
        if not _sorted(won):
            of = f"{won} of {won.pairs:,} comparisons with a later one"
            yield f"  {source}: an answer that stands before another in the file won {of}{few(won.prompts)}"
    yield from (f"  {line}" for line in warnings(named, places))


def _line(pairs: Pairs, trait: Trait) -> str:
    won = pairs.won(trait)
    if won is None:
        return ""
    having = [f"{100 * count / pairs.total:.1f} %" for count in pairs.having[trait.name] if trait.pattern] or ["", ""]
    line = f"    {trait.having:24}{won!s:>14}{won.pairs:>22,}{having[0]:>10}{having[1]:>18}"
    return line.rstrip() + few(won.prompts)


def warnings(splits: Mapping[str, Pairs], places: Mapping[str, Share]) -> Iterator[str]:
    """A line for each trait, and for each source's places, that wins or loses too often; with what to do about it."""
    for trait in TRAITS:
        for name, pairs in splits.items():
            won = pairs.won(trait)
            if won is None or not won.large(trait.large) or won.pairs < RAREST * pairs.total:
                continue
            winner, value = (trait.having, won) if won.value > 0.5 else (trait.lacking, won.other)
            if text := advice(trait, won.value > 0.5):
                yield f"{trait.name}: {winner} won {value} in {name}; {text}"
            break
    for source, won in places.items():
        if not _sorted(won) and won.large(REFUSALS.large):
            place, value = ("first", won) if won.value > 0.5 else ("last", won.other)
            yield (
                f"position: the answer that stands {place} won {value} in {source}; if they were judged in that order, "
                "judge them in both, or keep the clear cases (prepare.min_score_gap; labels have none)"
            )


def advice(trait: Trait, wins: bool) -> str:
    """What a trait that wins, or loses, does to what learns from the pairs, and what to do about it; empty for what
    most people want, which is fewer refusals."""
    if trait is LENGTH:
        grow, params = (
            ("longer", "ppo.length_penalty, dpo.ld_alpha, prepare.max_response_tokens")
            if wins
            else ("shorter", "ppo.min_new_tokens, prepare.min_response_chars")
        )
        return f"answers tend to get {grow}, better or not: see the wins at equal length (judge_lc_win_rate), {params}"
    if trait is REFUSALS and not wins:
        return ""
    change = "refuse more" if trait is REFUSALS else f"have {'more' if wins else 'less'} of it"
    return f"answers tend to {change}, asked for or not; prepare.drop_patterns: ['{trait.drop}'] drops such texts"


def _sorted(place: Share) -> bool:
    """Whether the file lists the better answer first, or last, so that its order says nothing of a judge."""
    return not 1 - SORTED < place.value < SORTED


def _without_doubles(splits: Mapping[str, Pairs]) -> dict[str, Pairs]:
    """The splits that have pairs; those with the same ones under both names."""
    found: dict[str, Pairs] = {}
    for name, pairs in splits.items():
        same = next((other for other, those in found.items() if those.wins == pairs.wins), None)
        if same and found[same].pairs == pairs.pairs:
            found = {f"{other}, {name}" if other == same else other: those for other, those in found.items()}
        elif pairs.pairs:
            found[name] = pairs
    return found
