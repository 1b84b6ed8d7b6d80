"""Params, code and local files that are edited while a stage runs, by real DVC: nothing is recorded that was made
without them, or with others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from copied_project import ENV, copy_of_project, executed, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_of_project(tmp_path_factory.mktemp("project"))
    run(folder, "dvc", "repro", "--quiet", "base")
    return folder


def while_runs(project: Path, stage: str, sign: str, edit) -> tuple[int, str]:
    """`dvc repro STAGE`, whose stage stands still where it has made `sign`, a glob, until `edit` is done: exit code and
    output."""
    command = ["dvc", "repro", stage]
    (project / f".dvc/tmp/stages/{stage}.lock").unlink(missing_ok=True)  # of an earlier run
    process = subprocess.Popen(
        command, cwd=project, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end = time.monotonic() + 240
    while not list(project.glob(sign)):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.01)
    while not (found := (project / f".dvc/tmp/stages/{stage}.lock").read_text().split()):
        time.sleep(0.01)
    pid = int(found[0])
    os.kill(pid, signal.SIGSTOP)
    edit()
    os.kill(pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def while_sft_runs(project: Path, edit) -> tuple[int, str]:
    return while_runs(project, "sft", "checkpoints/sft/*/.lock", edit)


def set_seed(project: Path, seed: int) -> None:
    """Params that no run before had."""
    run(project, sys.executable, "-m", "rlhf_lib.preset", "smoke", f"sft.seed={seed}", "--force")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("seed", "name", "old", "new", "told"),
    [
        (1, "params.yaml", "max_steps: 4", "max_steps: 5", "sft.max_steps"),
        (2, "rlhf_lib/sft/params.py", '"""', '"""Edited. ', "rlhf_lib/sft/params.py"),
    ],
    ids=["params", "code"],
)
def test_a_stage_that_was_edited_while_it_ran_is_not_recorded(project, seed, name, old, new, told):
    set_seed(project, seed)
    code, output = while_sft_runs(project, lambda: replace(project / name, old, new))
    assert code != 0
    assert f"sft: edited while it ran: {told};" in output
    assert f"seed: {seed}" not in (project / "dvc.lock").read_text()
    assert len(list(project.glob("checkpoints/sft/*/checkpoint-4"))) == 1
    replace(project / name, new, old)  # as the line says: the training goes on, from its last step
    assert executed(run(project, "dvc", "repro", "sft")) == ["sft"]
    assert f"seed: {seed}" in (project / "dvc.lock").read_text()
    assert not list(project.glob("checkpoints/sft/*/checkpoint-4"))


def test_an_edit_of_what_the_stage_does_not_read_is_nothing_to_it(project):
    def edit() -> None:
        replace(project / "params.yaml", "kl_coef: 0.2", "kl_coef: 0.3")
        replace(project / "params.yaml", "# most tokens", "# at most tokens")
        replace(project / "rlhf_lib/dpo/params.py", '"""', '"""Edited. ')
        (project / "rlhf_lib/sft/.params.py.swp").write_text("of an editor")

    set_seed(project, 3)
    code, output = while_sft_runs(project, edit)
    assert code == 0, output
    assert "seed: 3" in (project / "dvc.lock").read_text()


def test_a_local_file_that_was_edited_while_its_stage_ran_is_not_recorded(project):
    file = project / "mine.csv"
    file.write_text("prompt,response\n" + "".join(f"Say {i} aloud,old {i}\n" for i in range(40)))
    source = "{reader: file, path: mine.csv}"
    run(project, sys.executable, "-m", "rlhf_lib.preset", "smoke", f"load.sources=[{source}]", "--force")
    code, output = while_runs(project, "load", ".dvc/tmp/stages/load.lock", lambda: replace(file, "old", "new"))
    assert code != 0
    assert "load: edited while it ran: mine.csv;" in output
    run(project, "dvc", "repro", "load")  # with the edit
    replace(file, "new", "old")
    assert executed(run(project, "dvc", "repro", "load")) == ["load"]  # and not from the run cache
    assert "old 0" in "".join(path.read_text() for path in (project / "data/raw").glob("*.jsonl"))
