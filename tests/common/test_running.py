"""How a stage's process ends: by Ctrl-C, SIGTERM, a full disk, the end of its DVC; and that it is alone at its work."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from project import ROOT

from rlhf_lib.common.running import outer_fault

STAGE = """\
import os, sys, time
from pathlib import Path
from rlhf_lib.common import running

def main():
    Path("started").write_text(str(os.getpid()))
    {work}
    Path("out").write_text("whole")

running.PATIENCE = 1.0
if __name__ == "__main__":
    running.run(main)
"""
WAITS = "time.sleep(30)"
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    (tmp_path / ".dvc").mkdir()
    return tmp_path


def start(project, work, name="work", **variables):
    (project / f"{name}.py").write_text(STAGE.format(work=work))
    env = {key: value for key, value in ENV.items() if key not in ("DVC_STAGE", "RANK", "WORLD_SIZE")} | variables
    command = [sys.executable, "-m", name]
    return subprocess.Popen(command, cwd=project, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path, seconds=60.0):
    end = time.monotonic() + seconds
    while not (path.is_file() and path.read_text()):
        assert time.monotonic() < end, f"{path} has not come"
        time.sleep(0.02)
    return path.read_text()


def ended(process):
    """Exit code, and the lines of stderr that are not blank."""
    _, errors = process.communicate(timeout=60)
    return process.returncode, [line for line in errors.splitlines() if line]


def test_a_stage_that_ends_by_itself(project):
    assert ended(start(project, "pass")) == (0, [])
    assert (project / "out").read_text() == "whole"


@pytest.mark.parametrize(
    ("work", "code", "told"), [("pass", 0, []), ("raise SystemExit('it failed')", -signal.SIGTERM, ["it failed"])]
)
def test_a_signal_while_the_interpreter_ends_is_told_in_no_traceback(project, work, code, told):
    assert ended(start(project, f"import atexit; atexit.register(os.kill, os.getpid(), 15); {work}")) == (code, told)


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (signal.SIGINT, 130, "work: interrupted; dvc repro goes on where it stopped"),
        (signal.SIGTERM, 143, "work: ended by SIGTERM; dvc repro goes on where it stopped"),
    ],
)
def test_a_signal_ends_it_in_one_line(project, number, code, told):
    process = start(project, WAITS)
    wait_for(project / "started")
    process.send_signal(number)
    assert ended(process) == (code, [told])
    assert not (project / "out").exists()


@pytest.mark.parametrize(
    ("number", "code", "how"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")]
)
def test_a_signal_ends_one_of_several_that_waits_for_others(project, number, code, how):
    """As it does in C++, from which no handler of Python is called: here in a lock, with signals kept from it."""
    wait = "signal.pthread_sigmask(signal.SIG_BLOCK, {2, 15}); time.sleep(60)"
    work = f"import signal; running.GRACE = 0.2; Path('waits').write_text('1'); {wait}"
    process = start(project, work, WORLD_SIZE="2", TORCHELASTIC_RUN_ID="none")
    wait_for(project / "waits")
    process.send_signal(number)
    assert ended(process) == (code, [f"work: {how}; dvc repro goes on where it stopped"])


FULL = "work: the disk is full; free some space: dvc repro goes on where it stopped"
CUT = (
    "a file could not be written whole; look at the disk, your quota and ulimit -f: dvc repro goes on where it stopped"
)


@pytest.mark.parametrize(
    "work",
    [
        "os.write(os.open('/dev/full', os.O_WRONLY), b'x')",
        "raise RuntimeError('I/O error: No space left on device (os error 28)')",
        "raise ValueError('x') from OSError(122, 'Disk quota exceeded')",
    ],
    ids=["itself", "in words", "behind another error"],
)
def test_a_full_disk_is_told_in_one_line(project, work):
    assert ended(start(project, work)) == (1, [FULL])


@pytest.mark.parametrize(
    "text",
    [
        "[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0",
        "PytorchStreamWriter failed writing file data/0: file write failed",
        "basic_ios::clear: iostream error",
    ],
)
def test_what_pytorch_says_of_a_cut_file_is_a_full_disk_where_there_is_no_room(monkeypatch, text):
    """Where there is, a quota or a limit on a file's size: 4 GB on a memory stick, or ulimit -f."""
    for free, told in ((1 << 30, CUT), (4096, FULL.partition(": ")[2])):
        usage = shutil.disk_usage(".")._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, usage=usage: usage)
        assert outer_fault(RuntimeError(text)) == told


def test_a_limit_on_the_size_of_files_is_told_in_one_line(project):
    work = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4)); Path('out').write_text('more')"
    assert ended(start(project, f"{work}; Path('out').write_text('more than 4')")) == (1, [f"work: {CUT}"])


def test_a_place_that_may_not_be_written_is_told_in_one_line(project):
    work = "raise PermissionError(13, 'Permission denied', 'models/sft')"
    told = "work: models/sft: Permission denied; give this user the right to read and write there"
    assert ended(start(project, work)) == (1, [told])


def test_a_lock_that_may_not_be_written_is_told_in_one_line(project):
    (project / ".dvc/tmp").symlink_to("/sys/kernel")  # where not even root can make a folder
    code, (told,) = ended(start(project, "pass"))
    assert code == 1 and told.startswith("work: .dvc/tmp/stages: ") and told.endswith("right to read and write there")


def test_a_fault_of_the_code_keeps_its_traceback(project):
    code, lines = ended(start(project, "raise KeyError('mine')"))
    assert code == 1 and lines[0].startswith("Traceback") and lines[-1] == "KeyError: 'mine'"


def test_a_line_that_the_stage_ends_with_stays(project):
    assert ended(start(project, "raise SystemExit('params.yaml: sft.seed: no')")) == (1, ["params.yaml: sft.seed: no"])


@pytest.mark.parametrize(
    "error",
    [
        "MemoryError()",
        "RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')",
        "RuntimeError('DefaultCPUAllocator: can\\'t allocate memory: you tried to allocate 8589934592 bytes')",
        "OSError(12, 'Cannot allocate memory')",
        "RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`')",
    ],
)
def test_memory_that_is_not_there_is_told_in_one_line(project, error):
    told = (
        "work: not enough memory; lower a batch size (per_device_...), a length or the size of the model: make plan "
        "says what a stage needs. If other programs have it, end them: dvc repro goes on where it stopped"
    )
    assert ended(start(project, f"raise {error}")) == (1, [told])


@pytest.mark.parametrize(
    "error", [KeyError("x"), FileNotFoundError(2, "No such file", "x"), PermissionError("no file")]
)
def test_what_is_no_fault_of_the_disk(error):
    assert outer_fault(error) is None


@pytest.mark.parametrize(
    "said",
    [
        "[/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.2]:9922: Connection reset by peer",
        "NCCL error, remote process exited\nncclRemoteError: A call failed possibly due to",
    ],
)
def test_a_process_whose_fellow_has_ended_says_so(said):
    told = "another process of this run has ended, and this ends with it; see what it said: dvc repro goes on"
    assert outer_fault(RuntimeError(said)).startswith(told)


def test_what_was_handled_is_no_fault():
    try:
        try:
            raise PermissionError(13, "Permission denied", "x")
        except OSError:
            raise KeyError("mine") from None
    except KeyError as error:
        assert outer_fault(error) is None


def test_two_at_once_in_a_workspace_are_one_too_many(project):
    first = start(project, WAITS)
    pid = wait_for(project / "started")
    code, lines = ended(start(project, WAITS))
    assert (code, lines) == (
        1,
        [f"work: process {pid}, of an earlier run, is still at work here; wait for it, or kill {pid}"],
    )
    first.kill()
    first.wait()
    assert ended(start(project, "pass")) == (0, [])


def test_the_second_waits_for_one_that_is_about_to_end(project):
    first = start(project, "time.sleep(0.5)")
    wait_for(project / "started")
    assert ended(start(project, "pass")) == (0, []) and ended(first) == (0, [])


def test_other_stages_and_other_workspaces_are_not_in_the_way(project, tmp_path_factory):
    first = start(project, WAITS)
    wait_for(project / "started")
    other = tmp_path_factory.mktemp("other")
    (other / ".dvc").mkdir()
    assert ended(start(other, "pass")) == (0, [])
    assert ended(start(project, "pass", "another")) == (0, [])
    first.kill()
    first.wait()


def test_outside_a_project_there_is_nothing_to_lock(tmp_path):
    assert ended(start(tmp_path, "pass")) == (0, [])
    assert not (tmp_path / ".dvc").exists()


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_stage_ends_with_its_dvc(tmp_path, shell):
    """Killed so that DVC can tell nobody; /bin/sh may stay between the two, where bash gives its place to the stage."""
    (tmp_path / "work.py").write_text(STAGE.format(work=WAITS))
    (tmp_path / "dvc.yaml").write_text("stages:\n  work: {cmd: python -m work, outs: [out]}\n")
    env = {**{key: value for key, value in ENV.items() if not key.startswith("DVC_")}, "SHELL": shell}
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=tmp_path, env=env, check=True)
    process = subprocess.Popen([*dvc, "repro"], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    pid = int(wait_for(tmp_path / "started"))
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while lives(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not lives(pid) and not (tmp_path / "out").exists()
