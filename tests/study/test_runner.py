"""How experiments are run: a stand-in for the command dvc says when it starts and ends, and with what."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from project import ROOT
from studies import STUDY

from rlhf_lib.study import runner
from rlhf_lib.study.runner import Runner

DVC = """\
    #!/bin/sh
    if [ "$2" = list ]; then cat there 2>/dev/null; exit 0; fi
    name=$5
    echo "start $name $CUDA_VISIBLE_DEVICES" >> events
    if [ -e "busy-$name" ]; then rm "busy-$name"; echo "ERROR: Unable to acquire lock. Most likely"; exit 255; fi
    if [ -e "fail-$name" ]; then echo "ERROR: something failed"; exit 255; fi
    sleep "$(cat takes 2>/dev/null || echo 0)"
    echo "$name" >> there
    echo "end $name" >> events
"""
NAMES = [run.name for run in STUDY.runs("test")]


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/dvc").write_text(textwrap.dedent(DVC))
    (tmp_path / "bin/dvc").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(runner, "PAUSE", 0.01)
    return tmp_path


def events(project):
    return [line.split() for line in (project / "events").read_text().splitlines()]


def test_every_run_is_an_experiment_and_what_is_there_is_not_run_again(project, capsys):
    Runner(2, 1.0).run(list(STUDY.runs("test")))
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
    assert {gpu for what, _, *gpus in events(project) if what == "start" for gpu in gpus} == {"4", "7"}


def test_where_dvc_is_busy_it_is_tried_again(project):
    (project / f"busy-{NAMES[0]}").touch()
    Runner(1, 1.0).run(list(STUDY.runs("test")))
    assert [line[1] for line in events(project)[:3]] == [NAMES[0]] * 3


def test_a_failure_is_told_after_the_others_have_ended(project, capsys):
    (project / f"fail-{NAMES[0]}").touch()
    with pytest.raises(SystemExit, match=r"1 of 12 experiments failed \(PPO kl_coef 0.05, seed 0, test\)"):
        Runner(1, 1.0).run(list(STUDY.runs("test")))
    assert "PPO kl_coef 0.05, seed 0, test: failed: ERROR: something failed" in capsys.readouterr().out
    assert len((project / "there").read_text().splitlines()) == len(NAMES) - 1


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_ends_a_study_ends_its_experiments(project, number):
    (project / "takes").write_text("60")
    process = start()
    wait_for(project / "events")
    process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode != 0 and "stopped; the same command goes on" in told
    assert not (project / "there").exists()
    (project / "takes").write_text("0")
    Runner(2, 1.0).run(list(STUDY.runs("test")))  # nothing holds the lock any more


def test_a_second_study_is_refused_while_what_a_killed_one_started_runs(project):
    (project / "takes").write_text("2")
    process = start()
    wait_for(project / "events")
    process.kill()
    process.communicate(timeout=30)
    with pytest.raises(SystemExit, match="another study runs here, or what one that was killed had started"):
        Runner(1, 1.0).run(list(STUDY.runs("test")))
