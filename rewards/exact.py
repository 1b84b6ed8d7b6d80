"""A verifiable reward: whether an answer comes to the row's `solution`. docs/rewards.md has an example of its use.

It compares what is written, and does no algebra: 1/2 is not 0.5. For LaTeX there is `trl.rewards:accuracy_reward`,
which needs the package math_verify.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

Messages = list[dict[str, str]]

NUMBER = re.compile(
    r"(?<![\w.])[-+]?"
    r"(?:\d{1,3}(?:,\d{3})+(?![\d,]*\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"  # 1,000.5 or 1000.5 or .5
    r"(?:[eE][-+]?\d{1,3})?"
)
BOXED = re.compile(r"\\boxed\s*\{")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # \{ is a sign like others
MARKED = re.compile(r"####\s*(.+)")  # GSM8K's solutions end in it


def exact(completions: list[Messages], solution: list[Any], **columns: Any) -> list[float | None]:
    """1 where the answer comes to the row's solution, else 0; None for a row without a solution.

    What counts of an answer, and of a solution, is the last \\boxed{...}, else what follows the last ####, else all of
    it. Where the solution is a number, the last number in what counts must equal it: 1,000 is 1000 and 1000.0. Any
    other solution is compared as text, without regard to case, spacing and a full stop at its end.
    """
    return [
        None if (wanted := final(_text(known))) == "" else float(equal(final(completion[0]["content"]), wanted))
        for completion, known in zip(completions, solution, strict=True)
    ]


def final(text: str) -> str:
    """The last \\boxed{...} of a text, else what follows the last ####, else all of it."""
    found = boxed(text) or MARKED.findall(text)
    return (found[-1] if found else text).strip()


def boxed(text: str) -> list[str]:
    """What stands in each \\boxed{...} of a text, which may hold braces itself; one that is never closed is none."""
    begins = {match.end() for match in BOXED.finditer(text)}
    found, opened = [], []
    for match in BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.end())
        elif match[0] == "}" and opened and (begin := opened.pop()) in begins:
            found.append(text[begin : match.start()])
    return found


def equal(answer: str, solution: str) -> bool:
    """Whether an answer comes to a solution: as a number where the solution is one, else as text."""
    wanted = number(solution)
    if wanted is None:
        return _normalised(answer) == _normalised(solution)
    found = NUMBER.findall(answer)
    return bool(found) and _decimal(found[-1]) == wanted


def number(text: str) -> Decimal | None:
    """The number that a text is; None for one that is more than a number, or less."""
    return _decimal(text) if NUMBER.fullmatch(text) else None


def _text(solution: Any) -> str:
    return "" if solution is None else str(solution)


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def _normalised(text: str) -> str:
    return " ".join(text.split()).casefold().rstrip(".")
