"""What the attacks here compare with, and the table of what held."""

import os
import tempfile
from pathlib import Path

import pytest
from attacked import undisturbed
from tally import table


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """A copy of the project after a run that nothing disturbed; not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    undisturbed(folder)
    return folder


def pytest_configure():
    if "FAULTS_TALLY" not in os.environ:  # else this is a worker, which counts into the file of all
        file, os.environ["FAULTS_TALLY"] = tempfile.mkstemp(prefix="faults-", suffix=".jsonl")
        os.close(file)
    Path(os.environ["FAULTS_TALLY"]).touch()


def pytest_terminal_summary(terminalreporter, config):
    if not hasattr(config, "workerinput") and (counts := table(Path(os.environ["FAULTS_TALLY"]))):
        terminalreporter.write_line(f"\n{counts}")
