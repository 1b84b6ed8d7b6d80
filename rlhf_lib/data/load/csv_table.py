"""Tables as text: CSV, with commas, semicolons, tabs or bars between the fields, as the header has them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice

from rlhf_lib.data.load.json_text import MAX_RECORD
from rlhf_lib.data.load.reader import Record

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SAMPLE = 50  # lines from which the delimiter is told
NAMES_RULE = "each column needs a name of its own (in CSV and TSV the first row has them)"


def table_records(path: str, lines: Iterator[str], delimiter: str) -> Iterator[Record]:
    """A dict from column to text for each row; `delimiter` is the one of the suffix, where the header has no other."""
    csv.field_size_limit(MAX_RECORD)
    start = list(islice(lines, SAMPLE))
    if start and (said := re.fullmatch(r"sep=(.)\s*", start[0])):  # written by Excel, and for it
        delimiter, start = said[1], start[1:]
    else:
        delimiter = _delimiter(start, delimiter)
    # written by hand, as `prompt, "an answer"`: the blank is none of the field's, and the quote after it opens one
    spaced = f"{delimiter} " in next(filter(str.strip, start), "")
    rows = _rows(path, chain(start, lines), delimiter, spaced)
    header = [name.strip() for name in next(rows, [])]
    check_header(path, header)
    for number, row in enumerate(rows, start=1):
        place = f"{path}: row {number}"
        if len(row) != len(header):
            what = DELIMITERS.get(delimiter, f"{delimiter!r}")
            raise SystemExit(
                f"{place}: {len(row)} fields where the header has {len(header)}; quote fields that hold {what}"
            )
        yield Record(place, dict(zip(header, row, strict=True)))


def check_header(path: str, header: list[str]) -> None:
    """A header with a name of its own for each column; none at all is a file without records."""
    for number, name in enumerate(header, start=1):
        if not name.strip() and number > 1:  # pandas writes its index as a first column without a name
            raise SystemExit(f"{path}: header: column {number} has no name; {NAMES_RULE}")
        if name in header[: number - 1]:
            raise SystemExit(f"{path}: header: two columns are called {name!r}; {NAMES_RULE}")


def _delimiter(start: list[str], default: str) -> str:
    """What separates the fields of the header: first of all what gives the first row as many, then what gives most.

    `csv.Sniffer` guesses from the letters of all lines, and may take one that is common in prose.
    """

    def evidence(delimiter: str) -> tuple[bool, int, bool]:
        header, row = _first_two(start, delimiter)
        return header == row > 1, header, delimiter == default

    return max(DELIMITERS, key=evidence)


def _first_two(lines: Iterable[str], delimiter: str) -> tuple[int, int]:
    """How many fields the header and the first row have."""
    counts: list[int] = []
    with suppress(csv.Error):  # told when the rows are read
        counts.extend(len(row) for row in islice(filter(None, csv.reader(lines, delimiter=delimiter)), 2))
    header, row, *_ = [*counts, 0, 0]
    return header, row


def _rows(path: str, lines: Iterable[str], delimiter: str, spaced: bool) -> Iterator[list[str]]:
    """The fields of the header and of each row; blank lines between them are left out."""
    # strict: without it a quote that is never closed makes one field of the rest of the file
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=spaced, strict=True)
    number = 0
    try:
        for row in rows:
            if row:
                yield row
                number += 1
    except csv.Error as error:
        place = f"row {number}" if number else "header"
        raise SystemExit(f"{path}: {place}: {error}; check its quotes and line ends") from None
