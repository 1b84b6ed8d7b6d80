"""Counts of fault injection, which `make test-faults` puts into a table."""

import json
import os
from collections import Counter
from pathlib import Path


def tally(attack: str, tried: int, held: int) -> None:
    """Note how often an attack was tried and how often the project held."""
    if (file := os.environ.get("FAULTS_TALLY")) is not None:
        with Path(file).open("a", encoding="utf-8") as lines:
            lines.write(json.dumps({"attack": attack, "tried": tried, "held": held}) + "\n")


def table(file: Path) -> str:
    """The counts in a file, summed over each attack, as a Markdown table; empty where there are none."""
    counts = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    tried, held = Counter[str](), Counter[str]()
    for count in counts:
        tried[count["attack"]] += count["tried"]
        held[count["attack"]] += count["held"]
    rows = [f"| {attack} | {tried[attack]} | {held[attack]} |" for attack in tried]
    return "\n".join(["| attack | tried | held |", "|---|---|---|", *rows]) if rows else ""
