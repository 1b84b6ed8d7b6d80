"""The pages of the documentation, and the commands in them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from project import ROOT

COMMAND_PAGES = [Path("README.md"), *sorted(path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md"))]
PAGES = [*COMMAND_PAGES, *map(Path, ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md", "data/README.md"))]


def blocks(page: Path, language: str) -> list[list[str]]:
    """The lines of a page's fenced blocks of a language, without comments."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(body).rstrip().split("\n") for _, body in found]


def commands(block: list[str]) -> list[str]:
    return [command for line in block if (command := re.sub(r"(^|\s+)# .*$", "", line))]


def prose(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")
