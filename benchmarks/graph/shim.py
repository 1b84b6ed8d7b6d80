"""Runs a command and appends its seconds to $GRAPH_LOG: what stands for `python` while the graph is measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any


def timed(command: Sequence[str], env: Mapping[str, str], **options: Any) -> tuple[int, dict[str, float]]:
    """The exit code of a command, and the seconds that it took, with the processes it waited for."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=env, **options)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, {"wall_seconds": wall, "cpu_seconds": usage.ru_utime + usage.ru_stime}


def main() -> int:
    log, command = os.environ["GRAPH_LOG"], sys.argv[1:]
    modules = f"{log}-{os.getpid()}.json"  # what the process had imported at its end
    code, seconds = timed(command, {**os.environ, "GRAPH_PID": str(os.getpid()), "GRAPH_MODULES": modules})
    with open(log, "a", encoding="utf-8") as file:
        file.write(json.dumps({"arguments": command, "modules": modules, **seconds}) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
