"""Commands in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from project import DEMO, ROOT

ENV = {
    **{key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "PYTHONPATH"))},
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "GIT_AUTHOR_NAME": "test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
}


def run(cwd: Path, *command: str, check: bool = True) -> str:
    done = subprocess.run(command, cwd=cwd, env=ENV, capture_output=True, text=True, timeout=900)
    output = done.stdout + done.stderr
    assert not check or done.returncode == 0, output[-4000:]
    return output


def executed(output: str) -> list[str]:
    """The stages that `dvc repro` or `dvc exp run` ran, not those it took from its cache; but for inputs, which always
    runs."""
    return [stage for stage in re.findall(r"Running stage '([^']+)'", output) if stage != "inputs"]


def copy_of_project(folder: Path, *settings: str) -> Path:
    """The project's files, the smoke preset and settings applied, as a git repository with one commit."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\n")):
        if (ROOT / name).is_file() and name != "dvc.lock" and not name.startswith("metrics/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "metrics").mkdir()
    (folder / "metrics/lm_eval.json").write_text("{}\n")  # as it is before the first `make lm-eval`
    shutil.copy(DEMO, folder / "params.yaml")
    run(folder, "git", "init", "-q")
    run(folder, sys.executable, "-m", "rlhf_lib.preset", "smoke", *settings)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "-m", "state")
