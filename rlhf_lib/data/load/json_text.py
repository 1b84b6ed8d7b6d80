"""The JSON text of a file, read value by value: no file is ever in memory as a whole."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

MAX_RECORD = 64 * 2**20  # bytes of a line, or characters of a JSON value or of a CSV field
CHUNK = 2**20  # bytes of a JSON file read at a time
NUMBER_TAIL = 3  # characters: at the end of what was read so far, "1e+" is a 1 to the decoder
JSON = json.JSONDecoder()
JSON_SPACES = tuple(" \t\n\r")


def not_utf8(place: str, error: UnicodeDecodeError) -> str:
    """What is said of a file that is not UTF-8."""
    return f"{place}: not UTF-8 (it has the byte 0x{error.object[error.start]:02x}); save the file as UTF-8"


class JsonText:
    """The JSON text of a file, from its beginning; in memory is little more than the value that is read."""

    def __init__(self, path: str, file: IO[bytes]) -> None:
        self.path = self.place = path
        self.file = file
        self.file.seek(0)
        if self.file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            self.file.seek(0)
        self.utf8 = codecs.getincrementaldecoder("utf-8")()
        self.text, self.at, self.ended = "", 0, False

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        while True:
            while self.text[self.at : self.at + 1] in JSON_SPACES:
                self.at += 1
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._grow()

    def value(self) -> Any:
        """The value that comes next."""
        self.peek()
        while True:
            try:
                value, end = JSON.raw_decode(self.text, self.at)
                if self.ended or end + NUMBER_TAIL <= len(self.text):
                    self.at = end
                    return value
            except RecursionError:
                raise self.fault("lists or objects are nested too deeply") from None
            except ValueError as error:  # the value is not all here yet, or is not JSON
                detail = getattr(error, "msg", str(error))
                if self.ended:
                    raise self.fault(detail) from None
                if len(self.text) - self.at > MAX_RECORD:
                    raise self.fault(f"{detail}, or longer than {MAX_RECORD} characters") from None
            self._grow()

    def items(self) -> Iterator[Any]:
        """The values of the array that comes next; `place` is that of the value until the next is read."""
        self._take("[")
        number, closed = 0, self._closes("]")
        while not closed:
            number += 1
            self.place = f"{self.path}: row {number}"
            yield self.value()
            closed = self._take(",]") == "]"
        self.place = self.path

    def members(self) -> Iterator[str]:
        """The keys of the object that comes next; whoever iterates reads the value of one before the next key."""
        self._take("{")
        closed = self._closes("}")
        while not closed:
            if self.peek() != '"':
                raise self.fault("a key must be a string")
            key = self.value()
            self._take(":")
            yield key
            closed = self._take(",}") == "}"

    def fault(self, text: str) -> SystemExit:
        return SystemExit(f"{self.place}: not JSON ({text}); fix the file, or export it again")

    def _closes(self, bracket: str) -> bool:
        """Whether `bracket` comes next; if so, go past it."""
        closes = self.peek() == bracket
        self.at += closes
        return closes

    def _take(self, expected: str) -> str:
        """The next character, which must be one of those expected."""
        char = self.peek()
        if char not in tuple(expected):
            raise self.fault(f"expected {' or '.join(map(repr, expected))}, found {char!r}")
        self.at += 1
        return char

    def _grow(self) -> None:
        """Read on: as much again as there is, so that a long value is not tried too often."""
        pending, _ = self.utf8.getstate()
        place = self.file.tell() - len(pending)
        chunk = self.file.read(max(CHUNK, len(self.text) - self.at))
        try:
            more = self.utf8.decode(chunk, not chunk)
        except UnicodeDecodeError as error:
            raise SystemExit(not_utf8(f"{self.path}: byte {place + error.start}", error)) from None
        self.text, self.at, self.ended = self.text[self.at :] + more, 0, not chunk
