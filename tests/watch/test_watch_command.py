"""`python -m rlhf_lib.watch` as a process: once, into a file, on a terminal."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from project import ROOT

ENV = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
STAGE = """\
import time
from rlhf_lib.common import running

if __name__ == "__main__":
    running.run(lambda: time.sleep({seconds}))
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def stage(project, seconds):
    (project / "work.py").write_text(STAGE.format(seconds=seconds))
    return subprocess.Popen([sys.executable, "-m", "work"], cwd=project, env=ENV)


def watch(project, *arguments, **options):
    command = [sys.executable, "-m", "rlhf_lib.watch", *arguments]
    return subprocess.Popen(command, cwd=project, env=ENV, text=True, **options)


def once(project, *arguments, env=ENV):
    command = [sys.executable, "-m", "rlhf_lib.watch", "--once", *arguments]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60)


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_once_prints_what_runs_and_then_what_ran(project):
    running = stage(project, 30)
    until(lambda: once(project).stdout.startswith("work · at work · "))
    running.send_signal(signal.SIGTERM)
    assert running.wait() == 143
    done = once(project)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no stage runs; this waits for one\nlast: work, stopped ")
    assert stage(project, 0).wait() == 0
    assert "last: work, done " in once(project).stdout


def test_into_a_file_goes_a_block_for_each_change(project):
    with open(project / "seen.txt", "w") as seen:
        watching = watch(project, "--interval", "0.1", stdout=seen)
        until(lambda: "no stage runs" in (project / "seen.txt").read_text())
        assert stage(project, 2).wait() == 0
        until(lambda: "last: work, done" in (project / "seen.txt").read_text())
        watching.send_signal(signal.SIGINT)
        assert watching.wait() == 0
    text = (project / "seen.txt").read_text()
    assert text.count("no stage runs") == 2 and text.count("work · at work") == 1 and "\x1b" not in text


def test_on_a_terminal_it_is_drawn_in_place_until_ctrl_c(project):
    above, below = pty.openpty()
    watching = watch(project, "--interval", "0.1", stdin=below, stdout=below, stderr=below)
    os.close(below)
    said = ""
    while said.count("no stage runs") < 3:
        said += os.read(above, 4096).decode()
    assert "\x1b[1A\r\x1b[J" in said
    watching.send_signal(signal.SIGINT)
    assert watching.wait(20) == 0
    os.close(above)
    assert "Traceback" not in said


def test_where_signs_are_few_curves_are_of_plain_ones(project):
    done = once(project, env={**ENV, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stdout.isascii()


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf"])
def test_an_interval_that_is_none(project, interval):
    done = once(project, f"--interval={interval}")
    assert done.returncode == 1 and done.stderr.startswith("--interval: must be from 0 to 3600 seconds, got ")


def test_outside_a_project(tmp_path):
    done = once(tmp_path)
    told = "no project here: there is no folder .dvc; start this in the project's folder\n"
    assert (done.returncode, done.stderr) == (1, told)


def test_it_imports_no_library_of_models():
    heavy = "{'torch', 'transformers', 'yaml', 'numpy'}"
    code = f"import sys, rlhf_lib.watch.__main__; print(sorted({heavy} & {{*sys.modules}}))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "[]\n"
