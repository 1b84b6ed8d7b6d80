"""`make repro` on a small file system that fills up again and again."""

import random
import shutil
import subprocess

import pytest
from attacked import begin_anew, differences, printed, repro, results, running
from copied_project import copy_of_project
from tally import tally

FULL = 20
ROOM = 2**26  # bytes: more than the run needs


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own, and how its size is set."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a file system")
    resize = ["mount", "-o"]
    yield folder, lambda size: subprocess.run([*resize, f"remount,size={size}", folder], check=True)
    subprocess.run(["umount", "--lazy", folder], check=True)


def in_lines(output):
    """Whether a run ended with a line on the disk, and in no traceback."""
    lines = ("disk is full", "No space left on device", "the disk of DVC's cache has")
    return "Traceback" not in output and any(line in output for line in lines)


@pytest.mark.slow
@pytest.mark.faults
def test_a_full_disk_is_told_in_a_line_and_changes_nothing(whole, small_disk):
    folder, resize = small_disk
    expected, draw, wrong, full = results(whole), random.Random(0), [], 0
    project = copy_of_project(folder)
    while full < FULL:
        used = shutil.disk_usage(folder).used
        resize(used + draw.randrange(4096, 2**20, 4096))
        with running(project) as process:
            code = process.wait()
        resize(ROOM)
        if code == 0:
            wrong += differences(project, expected)
            begin_anew(project)
            continue
        full += 1
        if not in_lines(output := printed(project)):
            start = max(0, output.find("Traceback"))
            wrong.append(output[start : start + 3000])
    repro(project)
    wrong += differences(project, expected)
    tally("disk full", FULL, FULL - len(wrong))
    assert not wrong
