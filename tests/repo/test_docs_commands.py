"""The commands in README and docs run.

A line of a ```bash block is run here, or stands in `documented_commands.NOT_RUN` with the reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from copied_project import ENV, commit, copy_of_project, executed, run
from doc_pages import COMMAND_PAGES, blocks, commands
from documented_commands import AFTER_A_RUN, EITHER, NOT_RUN, ON_A_FRESH_COPY

COMMANDS = {
    f"{page}-{number}": commands(block)
    for page in COMMAND_PAGES
    for number, block in enumerate(blocks(page, "bash"), 1)
}


def to_run(where: set[str]) -> dict[str, list[str]]:
    """The blocks with lines that are run in such a copy, and these lines."""
    found = {name: [line for line in lines if line in where | EITHER] for name, lines in COMMANDS.items()}
    return {name: lines for name, lines in found.items() if set(lines) - EITHER}


def test_every_command_is_run_or_has_a_reason_why_not():
    lines = [line for block in COMMANDS.values() for line in block]
    known = [*ON_A_FRESH_COPY, *AFTER_A_RUN, *EITHER, *NOT_RUN]
    assert not set(lines) - set(known), "put it into ON_A_FRESH_COPY or AFTER_A_RUN, or with a reason into NOT_RUN"
    assert not set(known) - set(lines), "no page has it any more"
    assert len(known) == len(set(known)), "in two of them"


# ---- running them


def with_environment(folder: Path) -> Path:
    """The copy with a .venv that stands for the one of these tests, for which make has nothing to install."""
    own = Path(sys.executable).parent.parent
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "lib64"):
        if (own / name).exists():
            (folder / ".venv" / name).symlink_to(own / name)
    shutil.copy(own / "pyvenv.cfg", folder / ".venv")
    for name in ("run.stamp", "dev.stamp"):
        (folder / ".venv" / name).touch()
    return folder


def answers_csv() -> str:
    rows = [
        f"What is {n} plus {m}? Please tell me the sum.,The sum of these is {n + m + wrong}.,{9 - 5 * wrong}"
        for n in range(20)
        for m in range(20)
        for wrong in (0, 1)
    ]
    return "\n".join(["Question,Answer,Score", *rows]) + "\n"


def run_block(folder: Path, block: str, lines: list[str]) -> None:
    """Run lines of a page's block in a copy, with the files that the page says its reader has."""
    (folder / "notes.txt").write_text(block)  # something to commit
    (folder / "answers.csv").write_text(answers_csv())
    if block.startswith("docs/rewards.md"):
        (folder / "rewards/mine.py").write_text("\n".join(blocks(Path("docs/rewards.md"), "python")[0]) + "\n")
    env = {**ENV, "PATH": f"{folder}/.venv/bin{os.pathsep}{ENV['PATH']}", "BROWSER": "true", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(lines)],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def restore(folder: Path, base: str) -> None:
    """Back to the copy's first commit; what stages wrote and git ignores stays."""
    run(folder, "git", "reset", "-q", "--hard", base)
    run(folder, "git", "clean", "-fdq")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_environment(copy_of_project(tmp_path_factory.mktemp("fresh")))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = with_environment(copy_of_project(tmp_path_factory.mktemp("finished")))
    assert "report" in executed(run(folder, "dvc", "repro"))
    commit(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("block", to_run(ON_A_FRESH_COPY))
def test_commands_run_before_any_stage_has(fresh: Path, block: str):
    base = run(fresh, "git", "rev-parse", "HEAD").strip()
    run_block(fresh, block, to_run(ON_A_FRESH_COPY)[block])
    restore(fresh, base)


def state_of(folder: Path) -> str:
    """What git says of the files, and the params."""
    return run(folder, "git", "status", "--porcelain") + (folder / "params.yaml").read_text(encoding="utf-8")


EXPERIMENTS = [line for lines in COMMANDS.values() for line in lines if line.startswith("dvc exp run")]


def test_every_experiment_that_is_shown_runs_in_a_copy_of_the_workspace():
    assert len(EXPERIMENTS) > 20
    in_copies = ("dvc exp run --temp ", "dvc exp run --queue ", "dvc exp run --run-all ")
    assert [line for line in EXPERIMENTS if not line.startswith(in_copies)] == []


@pytest.mark.slow
def test_the_experiments_of_the_readme_leave_the_workspace_as_it_was(finished: Path):
    base = run(finished, "git", "rev-parse", "HEAD").strip()
    run_block(finished, "README.md", [line for lines in COMMANDS.values() for line in lines if line in EITHER][:1])
    before = state_of(finished)
    shown = [
        line for block in COMMANDS if block.startswith("README") for line in COMMANDS[block] if line in EXPERIMENTS
    ]
    assert shown and run(finished, "git", "status", "--porcelain") == ""
    for line in shown:
        run_block(finished, "README.md", [line])
        assert state_of(finished) == before, line
    restore(finished, base)


@pytest.mark.slow
@pytest.mark.parametrize("block", to_run(AFTER_A_RUN))
def test_commands_run_after_the_graph_has(finished: Path, block: str):
    base = run(finished, "git", "rev-parse", "HEAD").strip()
    run_block(finished, block, to_run(AFTER_A_RUN)[block])
    restore(finished, base)
    shutil.rmtree(finished / "rewards/quality", ignore_errors=True)
    run(finished, "dvc", "checkout", "-q", "--force")
