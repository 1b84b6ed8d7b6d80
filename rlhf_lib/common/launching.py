"""In how many processes `launch` of params.yaml starts a stage: before it does, and within one of them."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

_PROCESSES = re.compile(r"(?:^|--)num[_-]processes[:= ]+(\d+)", re.MULTILINE)
_FILE = re.compile(r"--config_file[= ]+(\S+)")


def processes(launch: str) -> int | None:
    """As its option tells, else the file of accelerate that it names; None where neither does."""
    if launch.strip() == "python":
        return 1
    texts = [launch]
    for file in _FILE.findall(launch):
        with suppress(OSError, UnicodeDecodeError):
            texts.append(Path(file).read_text(encoding="utf-8"))
    told = [int(found[1]) for text in texts if (found := _PROCESSES.search(text))]
    return told[0] or None if told else None


def num_processes() -> int:
    """How many processes torchrun, which `accelerate launch` calls, started for this stage."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the only one, or the one of several that writes what all have computed."""
    return os.environ.get("RANK", "0") == "0"
