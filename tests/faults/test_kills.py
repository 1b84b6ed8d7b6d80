"""`make repro` killed at any moment, and at the worst one, ends as a run that nothing disturbed, without a hand."""

import random
import shutil
import signal
import time

import pytest
import yaml
from attacked import after, begin_anew, differences, printed, repro, results, struck
from copied_project import commit, copy_of_project
from tally import tally

from rlhf_lib.repair import is_lock

KILLS, AIMED, SIGNALS = 100, 50, 20
WRITING = 0.12  # seconds that DVC takes to write its lock file


def until_struck(project, whole, delays, number=signal.SIGKILL):
    """Strike one run after another, so many seconds after its start; each goes on where the one before it was struck. A
    run that comes to its end is compared, and the next begins from nothing. The strikes, and what differed."""
    expected, struck_in_all, wrong = results(whole), 0, []
    for delay in delays:
        while not struck(project, after(delay), number=number):
            wrong += differences(project, expected)
            begin_anew(project)
        struck_in_all += 1
        if number != signal.SIGKILL and (told := told_badly(printed(project))):
            wrong.append(told)
    repro(project)
    return struck_in_all, wrong + differences(project, expected)


def told_badly(output):
    """What a run that a signal ended said in more than lines: the start of a traceback."""
    start = output.find("Traceback (most recent call last)")
    return output[start : start + 3000] if start >= 0 else ""


@pytest.mark.slow
@pytest.mark.faults
def test_kills_at_random_change_nothing(whole, tmp_path):
    draw = random.Random(0)
    delays = [draw.uniform(0.3, 12) for _ in range(KILLS)]
    kills, wrong = until_struck(copy_of_project(tmp_path), whole, delays)
    tally("kill -9 of DVC and stage at random", kills, kills - len(wrong))
    assert not wrong


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_in_lines_and_change_nothing(whole, tmp_path, number):
    draw = random.Random(number)
    delays = [draw.uniform(0.3, 12) for _ in range(SIGNALS // 2)]
    sent, wrong = until_struck(copy_of_project(tmp_path), whole, delays, number)
    tally(f"{signal.Signals(number).name} at random", sent, sent - len(wrong))
    assert not wrong


class WhileTheLockIsWritten:
    """A moment while DVC writes dvc.lock for the so-manieth time of a run: it empties the file first, and fills it in
    a tenth of a second."""

    def __init__(self, project, count, delay):
        self.file, self.left, self.delay = project / "dvc.lock", count, delay
        self.was_empty = self.is_empty()

    def is_empty(self):
        return self.file.exists() and self.file.stat().st_size == 0

    def __call__(self):
        is_empty = self.is_empty()
        self.left -= is_empty and not self.was_empty
        self.was_empty = is_empty
        if self.left == 0:
            time.sleep(self.delay)
        return self.left == 0


def forget(project, draw):
    """Take half of the stages out of dvc.lock, which DVC then finds again in its run cache one after another."""
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    for stage in draw.sample(sorted(lock["stages"]), len(lock["stages"]) // 2):
        del lock["stages"][stage]
    (project / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("is_committed", [False, True])
def test_kills_while_dvc_writes_its_lock_file_change_nothing(whole, tmp_path, is_committed):
    expected, draw = results(whole), random.Random(is_committed)
    project, wrong, cut = shutil.copytree(whole, tmp_path / "project", symlinks=True), [], 0
    if is_committed:
        commit(project)
    forget(project, draw)
    for _ in range(AIMED // 2):
        # half of the kills come at once, while the file is empty
        moment = (project, draw.randint(1, 2), max(0, draw.uniform(-WRITING, WRITING)))
        while not struck(project, WhileTheLockIsWritten(*moment)):
            wrong += differences(project, expected)
            forget(project, draw)
        cut += not is_lock((project / "dvc.lock").read_text())
    repro(project)
    wrong += differences(project, expected)
    assert cut > AIMED // 10, "few kills came while the file was written"
    tally("kill -9 while DVC writes dvc.lock", AIMED // 2, AIMED // 2 - len(wrong))
    assert not wrong


@pytest.mark.slow
def test_a_few_kills_while_dvc_writes_its_lock_file_change_nothing(tmp_path):
    project, again = copy_of_project(tmp_path), ("sh", "-c", "python -m rlhf_lib.repair && dvc repro prepare")
    repro(project, *again)
    expected, cut = results(project), 0
    (project / "dvc.lock").unlink()
    for _ in range(3):
        assert struck(project, WhileTheLockIsWritten(project, 1, 0), *again)
        cut += not is_lock((project / "dvc.lock").read_text())
    assert cut
    repro(project, *again)
    assert not differences(project, expected)
