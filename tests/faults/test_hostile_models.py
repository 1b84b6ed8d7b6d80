"""Broken and hostile model directories as base.model_name_or_path, through the check and stage base."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from base_attacks import attempted, folder_of, sound_project
from ended_commands import hold
from hostile_models import ATTACKS


@pytest.fixture
def attempt(tmp_path: Path) -> Callable[[str], str | None]:
    """Runs the check and the stage on a case; what did not hold, or None."""
    project = sound_project(tmp_path / "as-it-is")
    return lambda case: attempted(project, tmp_path / folder_of(case), *ATTACKS[case])


@pytest.mark.slow
@pytest.mark.faults
def test_every_broken_or_hostile_model_is_told_or_does_no_harm(attempt: Callable[[str], str | None]) -> None:
    hold("models and weights that are broken or hostile", list(ATTACKS), attempt)


@pytest.mark.slow
def test_some_are_told_or_do_no_harm(attempt: Callable[[str], str | None]) -> None:
    hold("models and weights that are broken or hostile (some)", random.Random(0).sample(list(ATTACKS), 2), attempt)
