"""A project with a report's files."""

from __future__ import annotations

import pytest
from report_project import make_project

from rlhf_lib.report import inputs
from rlhf_lib.report.inputs import Inputs


@pytest.fixture
def load(tmp_path, monkeypatch):
    """A function that makes a project in the working directory and loads it."""
    monkeypatch.chdir(tmp_path)

    def load(**options) -> Inputs:
        make_project(tmp_path, **options)
        return inputs.load()

    return load
