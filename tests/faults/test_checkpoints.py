"""Checkpoints of which something is missing: a stage takes one that is whole, or begins anew, and ends the same."""

import random
import shutil

import pytest
from attacked import differences, repro, results, struck
from tally import tally

BROKEN = 20
STAGES = ("sft", "reward", "dpo", "ppo")


def checkpoints(project, stage):
    """The whole checkpoints of a stage, from the oldest to the newest."""
    found = (project / "checkpoints" / stage).glob("*/checkpoint-*/files.json")
    return sorted((file.parent for file in found), key=lambda path: int(path.name.rpartition("-")[2]))


def delete(file):
    file.unlink()


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


@pytest.mark.slow
@pytest.mark.faults
def test_a_checkpoint_that_lacks_something_is_not_taken(whole, tmp_path):
    expected, draw, wrong = results(whole), random.Random(0), []
    project = shutil.copytree(whole, tmp_path / "project", symlinks=True)
    for number in range(BROKEN):
        stage, breaks = STAGES[number % len(STAGES)], draw.choice([delete, halve, empty])
        again = ("dvc", "repro", "-f", "-s", stage)  # else DVC takes the outs of the first run from its cache
        shutil.rmtree(project / "checkpoints", ignore_errors=True)
        assert struck(project, lambda stage=stage: bool(checkpoints(project, stage)), *again)
        newest = checkpoints(project, stage)[-1]
        file = draw.choice(sorted(file for file in newest.iterdir() if file.stat().st_size > 0))
        breaks(file)
        repro(project, *again)
        wrong += [(stage, breaks.__name__, file.name, name) for name in differences(project, expected)]
    tally("checkpoint with a file missing or cut", BROKEN, BROKEN - len({case[:3] for case in wrong}))
    assert not wrong
