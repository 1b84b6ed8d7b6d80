"""What long work has made so far, in a file that outlives a kill: a line of JSON for each chunk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def saved(file: Path) -> Iterator[Any]:
    """The value of each whole line of `file`, which is made where there is none.

    Half a line, which a kill left, is cut off once the others were read, by the process that writes.
    """
    whole = 0
    file.touch()
    with open(file, "r+b") as log:
        for line in log:
            if not line.endswith(b"\n"):
                break
            yield json.loads(line)
            whole += len(line)
        if os.environ.get("RANK", "0") == "0":
            log.truncate(whole)


def append(file: Path, value: Any) -> None:
    """Add a line."""
    with open(file, "a", encoding="utf-8") as log:
        log.write(json.dumps(value) + "\n")
