"""Chat templates that attack, raise or lose text, through the check and stage base."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from base_attacks import attempted, folder_of, sound_project
from ended_commands import hold
from hostile_templates import TEMPLATES


@pytest.fixture
def attempt(tmp_path: Path) -> Callable[[str], str | None]:
    """Runs the check and the stage on a model with a template; what did not hold, or None."""
    project = sound_project(tmp_path / "as-it-is")

    def attempted_with(case: str) -> str | None:
        text, told = TEMPLATES[case]
        written = text if isinstance(text, bytes) else text.encode()
        return attempted(
            project,
            tmp_path / folder_of(case),
            lambda model: (model / "chat_template.jinja").write_bytes(written),
            told,
        )

    return attempted_with


@pytest.mark.slow
@pytest.mark.faults
def test_every_hostile_template_is_told_or_does_no_harm(attempt: Callable[[str], str | None]) -> None:
    hold("chat templates that attack or raise", list(TEMPLATES), attempt)


@pytest.mark.slow
def test_some_are_told_or_do_no_harm(attempt: Callable[[str], str | None]) -> None:
    hold("chat templates that attack or raise (some)", random.Random(1).sample(list(TEMPLATES), 2), attempt)
