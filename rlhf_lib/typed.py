"""What a user types in a terminal: messages line by line, and commands, which begin with a slash."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple


class Command(NamedTuple):
    """What a command does, in words, and the doing."""

    told: str
    run: Callable[[], None]


NONE: Mapping[str, Command] = MappingProxyType({})


def lines(question: str, commands: Mapping[str, Command] = NONE) -> Iterator[str]:
    """The messages until the end of the input or /exit; commands, by their words, are run between them.

    A line with a slash before it that is no command is told, and is no message: with a second slash it is one.
    """
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 -- gives input() a history and arrow keys
    while True:
        try:
            line = input(question).strip()
        except EOFError:
            print()
            return
        if line == "/exit":
            return
        if line in commands:
            commands[line].run()
        elif line.startswith("/") and not line.startswith("//"):
            print(unknown(line, commands))
        elif line:
            yield line.removeprefix("/")


def unknown(line: str, commands: Mapping[str, Command]) -> str:
    """What to say of a line with a slash before it that is no command."""
    known = "".join(f"{name} {command.told}, " for name, command in commands.items()) + "/exit or Ctrl-D ends"
    return f"({line.split()[0]}: no command: {known}; a message that begins with a slash is sent with two: /{line})"
