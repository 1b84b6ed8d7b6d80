"""A module of this folder in two processes on a CPU."""

import os
import subprocess
import sys
from pathlib import Path

from project import ROOT


def launch(directory, module, *arguments, config="cpu-2"):
    """Run the module as a script in each of two processes, by a file of launch/."""
    options = ["--config_file", str(ROOT / f"launch/{config}.yaml"), "--num_processes", "2"]
    script = Path(__file__).with_name(f"{module}.py")
    return subprocess.run(
        [sys.executable, "-m", "accelerate.commands.launch", *options, str(script), *map(str, arguments)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(directory), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
