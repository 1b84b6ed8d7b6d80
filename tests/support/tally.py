"""Counts of fault injection, which `make test-faults` puts into a table."""

import json
import os
from pathlib import Path


def tally(attack: str, tried: int, held: int) -> None:
    """Note how often an attack was tried and how often the project held."""
    if (file := os.environ.get("FAULTS_TALLY")) is not None:
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"attack": attack, "tried": tried, "held": held}) + "\n")
