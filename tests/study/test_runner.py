"""How experiments are run: a stand-in for the command dvc says when it starts and ends, and with what."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from project import ROOT
from studies import STUDY

from rlhf_lib.experiments.sweep import finished
from rlhf_lib.study.runner import Runner
from rlhf_lib.study.workspaces import Workspace

DVC = """\
    #!/bin/sh
    case "$1 $2" in
    "exp list") git for-each-ref --format='%(refname:lstrip=4)' refs/exps; exit 0;;
    "cache dir") echo .dvc/cache; exit 0;;
    "exp run") ;;
    *) exit 0;;
    esac
    name=$4
    echo "start $name $CUDA_VISIBLE_DEVICES $PWD" >> "$TOLD/events"
    if [ -e "$TOLD/fail-$name" ]; then echo "ERROR: something failed"; exit 255; fi
    echo changed > params.yaml
    sleep "$(cat "$TOLD/takes" 2>/dev/null || echo 0)"
    git update-ref "refs/exps/ab/cdef/$name" HEAD
    echo "end $name" >> "$TOLD/events"
"""
NAMES = [run.name for run in STUDY.runs("test")]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of git, and beside it the stand-in's command, what it tells and what it is told."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dvc").write_text(textwrap.dedent(DVC))
    (tmp_path / "bin/dvc").chmod(0o755)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("TOLD", str(tmp_path))
    (tmp_path / "project/params.yaml").write_text("whole\n")
    (tmp_path / "project/.gitignore").write_text("/.dvc\n/checkpoints\n")
    person = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    for words in (["init", "-q"], ["add", "-A"], [*person, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *words], check=True)
    return tmp_path


def there():
    """The experiments that the project has."""
    return sorted(finished())


def events(project):
    return [line.split() for line in (project / "events").read_text().splitlines()]


def test_every_run_is_an_experiment_and_what_is_there_is_not_run_again(project, capsys):
    Runner(2, 1.0).run(list(STUDY.runs("test")))
    assert there() == sorted(NAMES)
    assert sorted(name for what, name in (line[:2] for line in events(project)) if what == "end") == sorted(NAMES)
    assert f"[{len(NAMES)}/{len(NAMES)}]" in capsys.readouterr().out
    (project / "events").unlink()
    Runner(2, 1.0).run(list(STUDY.runs("test")))
    assert not (project / "events").exists()
    assert f"{len(NAMES)} of {len(NAMES)} experiments are there already" in capsys.readouterr().out


def test_as_many_at_a_time_as_there_are_jobs(project):
    (project / "takes").write_text("0.2")
    Runner(3, 1.0).run(list(STUDY.runs("test")))
    running = most = 0
    for what, *_ in events(project):
        running += 1 if what == "start" else -1
        most = max(most, running)
    assert most == 3


def test_each_job_has_a_gpu_where_there_are_several(project, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    (project / "takes").write_text("0.1")
    Runner(2, 1.0).run(list(STUDY.runs("test")))
    assert {line[2] for line in events(project) if line[0] == "start"} == {"4", "7"}


def test_the_workspace_is_left_alone(project):
    """What an experiment does to the workspace in which it begins, it does to a clone."""
    Runner(2, 1.0).run(list(STUDY.runs("test")))
    assert Path("params.yaml").read_text() == "whole\n"
    assert subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True).stdout == ""
    assert {line[-1] for line in events(project) if line[0] == "start"} == {
        str(project / f"project/.dvc/tmp/study/worker-{i}") for i in (0, 1)
    }
    assert not list(Path(".dvc/tmp/study").glob("worker-*"))


def test_the_clones_share_the_checkpoints(project):
    space = Workspace(Path(".dvc/tmp/study/worker-0").resolve())
    space.make()
    (space.folder / "checkpoints/kept").write_text("x")
    assert Path("checkpoints/kept").read_text() == "x"
    (space.folder / "params.yaml").write_text("changed")
    space.clean()
    assert (space.folder / "params.yaml").read_text() == "whole\n"
    space.make()
    space.remove()
    assert Path("checkpoints/kept").exists() and not space.folder.exists()


def test_what_goes_wrong_in_a_worker_is_said(project, monkeypatch):
    monkeypatch.setattr(Workspace, "clean", lambda space: sys.exit("git failed: no space left"))
    with pytest.raises(SystemExit, match="git failed: no space left"):
        Runner(2, 1.0).run(list(STUDY.runs("test")))


def test_a_failure_is_told_after_the_others_have_ended(project, capsys):
    (project / f"fail-{NAMES[0]}").touch()
    with pytest.raises(SystemExit, match=r"1 of 12 experiments failed \(PPO kl_coef 0.05, seed 0, test\)"):
        Runner(1, 1.0).run(list(STUDY.runs("test")))
    assert "PPO kl_coef 0.05, seed 0, test: failed: ERROR: something failed" in capsys.readouterr().out
    assert there() == sorted(NAMES[1:])


SCRIPT = """
import sys
from studies import STUDY
from rlhf_lib.study.runner import Runner
Runner(2, 1.0).run(list(STUDY.runs("test")))
"""


def start():
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests/support")])
    command = [sys.executable, "-c", SCRIPT]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True)


def wait_for(path):
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_ends_a_study_ends_its_experiments(project, number):
    (project / "takes").write_text("60")
    process = start()
    wait_for(project / "events")
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode != 0 and "stopped; the same command goes on" in told
    assert there() == []
    (project / "takes").write_text("0")
    Runner(2, 1.0).run(list(STUDY.runs("test")))  # nothing holds the lock any more


def test_a_study_that_nohup_started_outlives_its_terminal(project):
    (project / "takes").write_text("0.5")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start()
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for(project / "events")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0 and there() == sorted(NAMES)


def test_a_second_study_is_refused_while_what_a_killed_one_started_runs(project):
    (project / "takes").write_text("2")
    process = start()
    wait_for(project / "events")
    process.kill()
    process.communicate(timeout=30)
    with pytest.raises(SystemExit, match="another study runs here, or what one that was killed had started"):
        Runner(1, 1.0).run(list(STUDY.runs("test")))
