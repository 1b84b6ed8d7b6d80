"""What `make sweep` queues, and when it refuses."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project import DEMO

from rlhf_lib.experiments import sweep
from rlhf_lib.experiments.sweep import Point

QUEUE = """Task     Name                     Created    Status
ee164e3  sweep-ppo-kl0.3-seed0    09:36 AM   Running
5f6589c  sweep-ppo-kl0.3-seed1    Nov 20, 2026  Queued
50c2f03  sweep-dpo-beta0.1-seed0  09:36 AM   Failed
7917788  sweep-dpo-beta0.1-seed1  09:36 AM   Success

Worker status: 1 active, 0 idle
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    shutil.copy(DEMO, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def commands(monkeypatch):
    """The commands that were run, in a project with this queue and one finished experiment."""
    ran = []

    def output(*command):
        ran.append(command)
        return {("dvc", "queue"): QUEUE, ("dvc", "exp"): "sweep-dpo-beta0.1-seed1\n"}.get(command[:2], "")

    monkeypatch.setattr(sweep, "output", output)
    return ran


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
    sweep.main()


def test_every_coefficient_goes_with_every_seed_once(project):
    found = sweep.points({"ppo": [0.05, 1.0, 0.05], "dpo": [1e-5]}, [0, 3])
    assert [point.name for point in found] == [
        *["sweep-ppo-kl0.05-seed0", "sweep-ppo-kl0.05-seed3", "sweep-ppo-kl1-seed0", "sweep-ppo-kl1-seed3"],
        *["sweep-dpo-beta1e-05-seed0", "sweep-dpo-beta1e-05-seed3"],
    ]


def test_a_method_that_is_not_wanted_is_turned_on_and_a_count_stays_whole(project, commands):
    for point in sweep.points({"rft": [4.0], "rft_random": [8.0]}, [1]):
        point.queue()
    settings = [[word for word in command[6:] if word not in ("-S", "select")] for command in commands]
    assert settings == [
        ["policy=rft", "methods.rft=true", "rft.n=4", "rft.seed=1"],
        ["policy=rft_random", "methods.rft=true", "methods.rft_random=true", "rft.n=8", "rft.seed=1"],
    ]
    assert [command[5] for command in commands] == ["sweep-rft-n4-seed1", "sweep-rft_random-n8-seed1"]


@pytest.mark.parametrize(
    ("coefficients", "complaint"),
    [
        ({"ppo": [-1.0]}, "ppo.kl_coef: must be at least 0"),
        ({"dpo": [0.0]}, "dpo.beta: must be"),
        ({"rft": [2.5]}, "rft.n: must be a whole"),
    ],
)
def test_a_value_that_params_yaml_must_not_hold_is_refused_before_anything_is_queued(project, coefficients, complaint):
    with pytest.raises(SystemExit, match=complaint):
        sweep.points(coefficients, [0])


def test_a_point_is_queued_by_name_with_its_params_and_no_stage_after_select(commands):
    Point("dpo", 0.1, 2).queue()
    settings = ["policy=dpo", "dpo.beta=0.1", "dpo.seed=2"]
    flags = [word for setting in settings for word in ("-S", setting)]
    assert commands == [("dvc", "exp", "run", "--queue", "--name", "sweep-dpo-beta0.1-seed2", *flags, "select")]


def test_what_is_done_or_waits_or_runs_is_not_queued_again_and_what_failed_is(project, commands, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "check_workspace", lambda policies: None)
    run(monkeypatch, "--ppo=0.3", "--dpo=0.1", "--seeds=0,1,2")
    queued = [command[5] for command in commands if command[:3] == ("dvc", "exp", "run")]
    assert queued == ["sweep-ppo-kl0.3-seed2", "sweep-dpo-beta0.1-seed0", "sweep-dpo-beta0.1-seed2"]
    out = capsys.readouterr().out
    assert "sweep-ppo-kl0.3-seed0: there already" in out and "sweep-dpo-beta0.1-seed0: queued" in out


def test_an_experiment_whose_worker_was_killed_is_told_with_the_way_out(commands, monkeypatch):
    monkeypatch.setitem(globals(), "QUEUE", QUEUE.replace("1 active", "0 active"))
    with pytest.raises(SystemExit, match=r"dvc queue kill sweep-ppo-kl0\.3-seed0, and try again"):
        sweep.existing()


@pytest.mark.parametrize("arguments", [["--ppo=0.1,x"], ["--seeds=0.5"]])
def test_what_is_no_list_of_numbers_is_refused(project, monkeypatch, capsys, arguments):
    with pytest.raises(SystemExit):
        run(monkeypatch, *arguments)
    assert "must be numbers with commas between" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--ppo=", "--dpo="], ["--ppo=0.1", "--seeds="]])
def test_nothing_to_sweep_is_told(project, monkeypatch, arguments):
    with pytest.raises(SystemExit, match=r"nothing to sweep: .* of rft.n \(--rft\), of rft.n \(--rft_random\)"):
        run(monkeypatch, *arguments)


# ---- the workspace


@pytest.fixture
def committed(project, monkeypatch):
    """A git repository with all committed, and a dvc whose status is what the file says holds: the pipeline has run."""
    (project / "bin").mkdir()
    (project / "bin/dvc").write_text('#!/bin/sh\necho "$@" > .git/asked\ncat .git/says\n')
    (project / "bin/dvc").chmod(0o755)
    monkeypatch.setenv("PATH", str(project / "bin"), prepend=":")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], check=True)
    (project / ".git/says").write_text('{"inputs": ["always changed"]}')
    return project


def test_a_clean_workspace_whose_pipeline_has_run_is_taken(committed):
    sweep.check_workspace(["dpo", "ppo"])
    asked = (committed / ".git/asked").read_text().split()[-4:]
    assert asked == ["measure@sft", "measure@best_of_n", "measure@dpo", "measure@ppo"]


def test_uncommitted_work_is_refused_by_name(committed):
    with open("params.yaml", "a") as file:
        file.write("# edited\n")
    (committed / "new.py").write_text("")
    with pytest.raises(SystemExit, match=r"not committed: params\.yaml, new\.py; git add"):
        sweep.check_workspace(["dpo"])


@pytest.mark.parametrize("folder", [".", "a folder/größe"])
def test_a_file_may_be_free_to_change_also_where_the_project_is_a_folder_of_a_repository(
    committed, monkeypatch, folder
):
    (committed / folder).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    for name in ("study.yaml", "other file.yaml"):
        (committed / folder / name).write_text("")
        subprocess.run(["git", "add", name], check=True)
    with pytest.raises(SystemExit, match=rf"not committed: {(Path(folder) / 'other file.yaml').as_posix()}; git add"):
        sweep.check_workspace([], free="study.yaml")


def test_a_pipeline_that_has_not_run_is_refused(committed):
    (committed / ".git/says").write_text('{"inputs": ["always changed"], "ppo": [{"changed command": "x"}]}')
    with pytest.raises(SystemExit, match=r"dvc checkout .* dvc pull .* else dvc repro; commit"):
        sweep.check_workspace(["dpo"])


def test_outside_git_the_sweep_says_what_git_says(project, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    with pytest.raises(SystemExit, match="git status --porcelain .* failed: fatal: not a git repository"):
        sweep.check_workspace(["dpo"])


def test_letters_that_dvc_cannot_copy_are_told_before_anything_is_queued(committed):
    (committed / ".git/says").write_text("/somewhere/cache\n")
    sweep.check_letters()
    with open(".git/config", "a", encoding="utf-8") as file:
        file.write("[user]\n\tname = Größe\n")
    with pytest.raises(SystemExit, match=r"^\.git/config: .* ASCII; .*git config --global user\.name"):
        sweep.check_letters()
    (committed / ".git/says").write_text("/srv/größe/cache\n")
    with pytest.raises(SystemExit, match=r"^/srv/größe/cache: .* ASCII; .*dvc cache dir --local DIR"):
        sweep.check_letters()
