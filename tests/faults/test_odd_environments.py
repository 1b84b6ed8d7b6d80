"""Odd surroundings: the same data, or one line with the way out."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from base_attacks import folder_of
from copied_project import ENV, commit, copy_of_project
from copied_project import run as run_in
from ended_commands import hold, run, untold, unwell
from odd_environments import CHECK, ENVIRONMENTS, READ_ONLY, SHOW, can_mount, read_only

SPLIT = "data/splits/test.jsonl"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose data have been prepared."""
    folder = copy_of_project(tmp_path_factory.mktemp("prepared") / "project")
    run_in(folder, "dvc", "repro", "-q", "prepare")
    commit(folder)
    return folder


def attempted(case: str, project: Path, folder: Path) -> str | None:
    """What does not hold of a case's commands in a copy of the project; None where all does."""
    odd = ENVIRONMENTS.get(case) or READ_ONLY[case]
    copied = folder / folder_of(case) / "project"
    shutil.copytree(project, copied, symlinks=True)
    for name in ("data/inputs", "data/raw", "data/splits", "checkpoints"):
        shutil.rmtree(copied / name, ignore_errors=True)
    if not any(command.startswith("dvc") for command in odd.commands):
        shutil.copytree(project / "data", copied / "data", dirs_exist_ok=True)
    copied = odd.before(copied) or copied
    around = read_only(copied) if case in READ_ONLY else odd.around
    env = {key: value for key, value in {**ENV, **odd.env, "DVC_NO_ANALYTICS": "1"}.items() if value is not None}
    for command in odd.commands:
        ended = run([*around, "bash", "-c", command], copied, env, stdin=None)
        if odd.told is None and (told := unwell(ended)):
            return f"{command}: {told}"
    if odd.told is not None:
        return untold(ended, odd.told)
    same = (copied / SPLIT).read_bytes() == (project / SPLIT).read_bytes()
    return None if same else "other data"


@pytest.mark.slow
@pytest.mark.faults
def test_every_odd_environment_is_told_or_does_no_harm(project: Path, tmp_path: Path) -> None:
    cases = [*ENVIRONMENTS, *(READ_ONLY if can_mount() else ())]
    hold("odd environments", cases, lambda case: attempted(case, project, tmp_path))


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("module", ["rlhf_lib.check", "stages.inputs", "stages.prepare", "stages.base"])
def test_ctrl_c_while_a_command_starts_is_one_line(project: Path, module: str) -> None:
    """From a fifth of a second on, before which Python itself is still starting."""

    def attempt(moment: str) -> str | None:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            cwd=project,
            env={**ENV, "PYTHONPATH": str(project)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
        )
        time.sleep(float(moment))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        lines = [line for line in errors.splitlines() if line]
        # Python ends itself by the signal, which a shell calls 130 too, if it came as the interpreter ends or amid an
        # exec of a text
        well = process.returncode in (0, -signal.SIGINT) or (process.returncode == 130 and "interrupted" in lines[-1])
        return None if well and "Traceback" not in errors else f"{process.returncode}: {errors[-600:]}"

    hold(f"Ctrl-C while {module} starts", ["0.3", "0.5", "0.8", "1.2", "2.0"], attempt)


def test_some_are_told_or_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that need neither DVC nor the data, of a project that has not run."""
    project = copy_of_project(tmp_path / "project")
    (project / SPLIT).parent.mkdir(parents=True)
    (project / SPLIT).write_text("")
    of_check = [case for case, odd in ENVIRONMENTS.items() if odd.commands == (CHECK,) and SHOW not in odd.commands]
    hold("odd environments (some)", random.Random(0).sample(of_check, 3), lambda c: attempted(c, project, tmp_path))
