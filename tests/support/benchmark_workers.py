"""A side's process of a benchmark, given its turns."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from project import ROOT

from benchmarks.processes import worker_env


def reports(module: str, case: str, models: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a worker says first, and of two updates at toy size."""
    arguments = ["--case", case, "--quick", "--updates", "2", "--models", str(models)]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=worker_env([]),
        input="go\ngo\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    start, *updates = map(json.loads, done.stdout.splitlines())
    return start, updates
