"""Commands under attack, each with a deadline of its own, and what of their end does not hold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from project import ROOT
from tally import tally

SECONDS = 120.0
WORKERS = 2
LONGEST = 1_500  # characters of a line that is to be read
_BAR = re.compile(r"(Loading weights|Writing model shards|Map|PPO)[^\r\n|]*\d+%\|[^\r\n|]*\|[^\r\n\]]*\]")
# As few as a stage needs: what the tests run in is none of its business.
ENV = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "HOME": os.environ.get("HOME", "/tmp"),
    "PYTHONPATH": str(ROOT),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}


class Ended(NamedTuple):
    """How a command ended. code: None where it did not, in time."""

    code: int | None
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        """What it said on stderr, without progress bars and blank lines."""
        return [line for line in re.split(r"[\r\n]+", _BAR.sub("", self.stderr)) if line.strip()]


def run(
    command: Sequence[str], folder: Path, env: Mapping[str, str] = ENV, seconds: float = SECONDS, **options: Any
) -> Ended:
    """The end of a command in a folder; one that does not end in time is killed, with all that it started."""
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        command, cwd=folder, env=dict(env), text=True, errors="replace", start_new_session=True, **(streams | options)
    )
    try:
        out, err = process.communicate(timeout=seconds)
        return Ended(process.returncode, out or "", err or "")
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        out, err = process.communicate()
        return Ended(None, out or "", err or "")


def untold(ended: Ended, words: str, lines: int = 1) -> str | None:
    """Why an end is not the one line that it should be, with these words (a pattern) in it; None where it is."""
    if ended.code is None:
        return f"it did not end: {ended.stderr[-300:]}"
    if ended.code <= 0 or "Traceback" in ended.stderr + ended.stdout:
        return f"exit code {ended.code}: {ended.stderr[-600:]}"
    if not 1 <= len(ended.lines) <= lines or len(ended.lines[-1]) > LONGEST:
        return f"{len(ended.lines)} lines: {ended.stderr[:600]}"
    if re.search(words, ended.lines[-1]) is None:
        return f"not {words!r}: {ended.lines[-1]}"
    return None


def unwell(ended: Ended) -> str | None:
    """Why an end is not a good one; None where it is."""
    is_well = ended.code == 0 and "Traceback" not in ended.stderr + ended.stdout
    return None if is_well else f"exit code {ended.code}: {ended.stderr[-600:]}"


def hold(attack: str, cases: Sequence[str], attempt: Callable[[str], str | None]) -> None:
    """Try every case, several at once, and count; those that did not hold, with what `attempt` says of them, fail."""
    with ThreadPoolExecutor(WORKERS) as pool:
        told = dict(zip(cases, pool.map(attempt, cases), strict=True))
    broken = {case: why for case, why in told.items() if why is not None}
    tally(attack, len(cases), len(cases) - len(broken))
    assert not broken, "\n".join(f"{case}: {why}" for case, why in broken.items())
