"""Regular expressions that take for ever on some short text: Python's re has no limit of time."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import islice

REPEATS = re.compile(r"[*+]|\{\d*,?\d*\}")
SECONDS = 5  # of a core, for what takes milliseconds
MOST = 3  # patterns that are told, and waited for
# In a process of its own, which the system ends, also where the check was killed meanwhile.
SEARCH = """
import json, re, resource, sys
pattern, texts, seconds = json.load(sys.stdin)
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
[re.search(pattern, text) for text in texts]
"""


def too_slow(patterns: Sequence[str]) -> Iterator[str]:
    """The first patterns that do not come to an end within seconds on texts of their own letters, repeated."""
    return islice(_without_end(patterns), MOST)


def _without_end(patterns: Sequence[str]) -> Iterator[str]:
    for pattern in dict.fromkeys(patterns):
        if len(REPEATS.findall(pattern)) < 2 and "|" not in pattern:
            continue  # one repetition takes at most the square of the text's length
        done = subprocess.run(
            [sys.executable, "-I", "-c", SEARCH],
            input=json.dumps([pattern, texts(pattern), SECONDS]),
            text=True,
            capture_output=True,
        )
        if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            yield pattern


def texts(pattern: str) -> list[str]:
    """Texts that almost match: a letter, or the pattern without its signs, many times, and an odd end."""
    letters = dict.fromkeys([*re.sub(r"\W", "", pattern)[:20], "a", "0", " ", "-"])
    words = [*letters, re.sub(r"\W|\d", "", pattern)[:20] or "b", "a "]
    return [word * times + "\n!\0" for times in (30, 1000) for word in words]
