"""Scripts of this folder in processes of their own, two on a CPU say."""

import os
import subprocess
import sys
from pathlib import Path

from project import ROOT


def launch(directory, module, *arguments, config="cpu-2", processes=2, shards=False, **variables):
    """Run the module as a script in each of several processes, by a file of launch/.

    shards: let FSDP2 shard, which accelerate does on GPUs only.
    """
    options = ["--config_file", str(ROOT / f"launch/{config}.yaml"), "--num_processes", str(processes)]
    scripts = [Path(__file__).with_name(f"{name}.py") for name in (["sharded_cpus"] if shards else []) + [module]]
    return run(directory, "-m", "accelerate.commands.launch", *options, *scripts, *arguments, **variables)


def run(directory, *words, **variables):
    """Run Python with these words, in a project's folder and by this project's code."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables, "DVC_ROOT": str(directory), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
