"""The key taken out of what a server says: servers repeat it, in errors and in replies, whole, cut or encoded."""

from __future__ import annotations

import re
from array import array
from base64 import b64encode
from collections.abc import Iterator, Sequence
from heapq import merge
from string import ascii_lowercase, ascii_uppercase

MASK = "***"
PIECE = 8  # characters of the key, or of an encoding of it, that are masked wherever they stand
SHORTEST_KEY = 4

_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)
# a character in URLs (encoded once or more), in JSON and Python strings, and in HTML; and JSON's \/
_ESCAPED = re.compile(
    r"(?:%(?:25)*|\\{1,4}x|\\{1,4}u00|&#x0*)([0-9a-f]{2});?|&#0*([0-9]{2,3});?|\\{1,4}(/)", re.IGNORECASE
)


class Mask:
    """`mask(text)` is the text of a server with `***` in place of the key.

    Masked is whatever has eight characters in a row with the key in common, so that a key is found though the server
    cut it at either end; in either case; also if spelt with escapes of URLs, JSON, Python or HTML, or inside base64
    (as in Basic authentication, at any offset) or hex.

    A key of four to seven characters is masked only where it stands alone, as a word. A shorter one is masked nowhere:
    it is a placeholder, which servers without keys are given, and every text would be full of it.

    It is made for servers that repeat what they got. One that wants to give the key away knows it already.
    """

    def __init__(self, key: str) -> None:
        self._pieces = {form[i : i + PIECE] for form in _forms(key) for i in range(len(form) - PIECE + 1)}
        self._word = None
        if SHORTEST_KEY <= len(key) < PIECE:
            self._word = re.compile(rf"(?<![0-9A-Za-z]){re.escape(key)}(?![0-9A-Za-z])")

    def __call__(self, text: str) -> str:
        plain, places = _spelt(text)
        parts: list[str] = []
        end = 0
        for start, stop in merge(self._found(text, range(len(text) + 1)), self._found(plain, places)):
            if start > end or not parts:
                parts += [text[end:start], MASK]
            end = max(end, stop)
        return "".join([*parts, text[end:]])

    def _found(self, text: str, places: Sequence[int]) -> Iterator[tuple[int, int]]:
        """From where to where the key stands in a text, whose characters have `places` (one more than characters)."""
        if self._word is not None:
            yield from ((places[word.start()], places[word.end()]) for word in self._word.finditer(text))
        lower = text.translate(_LOWER)
        for start in range(len(lower) - PIECE + 1 if self._pieces else 0):
            if lower[start : start + PIECE] in self._pieces:
                yield places[start], places[start + PIECE]


def _forms(key: str) -> Iterator[str]:
    """What of a key of at least eight characters may stand in a text, in lower case."""
    if len(key) < PIECE:
        return
    data = key.encode()
    yield key.translate(_LOWER)
    yield data.hex()
    for offset, mixed in enumerate((0, 2, 3)):  # characters of base64 that hold bits of what stands before the key
        whole = (offset + len(data)) * 8 // 6  # the last one may hold bits of what follows
        encoded = b64encode(bytes(offset) + data).decode()[mixed:whole].translate(_LOWER)
        yield encoded
        yield encoded.replace("+", "-").replace("/", "_")  # as in URLs


def _spelt(text: str) -> tuple[str, Sequence[int]]:
    """The text with its escapes undone, and where each of its characters began; last, where the text ends."""
    parts: list[str] = []
    places, end = array("Q"), 0
    for found in _ESCAPED.finditer(text):
        hexadecimal, decimal, slash = found.groups()
        parts += [text[end : found.start()], slash or chr(int(hexadecimal, 16) if hexadecimal else int(decimal))]
        places.extend(range(end, found.start() + 1))
        end = found.end()
    places.extend(range(end, len(text) + 1))
    return "".join([*parts, text[end:]]), places
