"""The table in docs/models.md says what the tests of architectures hold."""

import re
from pathlib import Path

from chat_standins import FAMILIES
from doc_pages import prose
from model_table import TABLE, Cells
from project import ROOT

PAGE = Path("docs/models.md")


def rows(heading):
    """The cells of the table under a heading, its own head first."""
    section = prose(PAGE).split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_pages_table_is_the_tests_table():
    head, *of_architectures = rows("Architectures")
    assert [name.lower().replace(" ", "_") for name in head] == ["architecture", *Cells._fields]
    assert {name: Cells(*cells) for name, *cells in of_architectures} == TABLE


def tokens(cell):
    """The tokens in a cell; a bar in one is escaped, or it would end the cell."""
    return [token.replace("\\|", "|") for token in re.findall(r"`([^`]+)`", cell)]


def test_the_table_of_templates_is_that_of_the_stand_ins():
    (_, *_), *of_families = rows("Templates")
    assert len(of_families) == len(FAMILIES)
    for (name, begins, ends, template), family in zip(of_families, FAMILIES.values(), strict=True):
        assert tokens(ends) == sorted(set(family.stops)), name
        assert tokens(begins) in ([], [family.bos]) and (tokens(begins) or not family.adds_bos), name
        assert template == ("its own" if family.template else "the project's"), name


def test_the_lines_that_the_page_quotes_are_in_the_code():
    code = "".join(path.read_text() for path in (ROOT / "rlhf_lib").rglob("*.py"))
    quoted = [line for _, told in rows("What is refused")[1:] for line in re.findall(r"`([^`]+)`", told)]
    assert len(quoted) >= 6
    assert [line for line in quoted if line not in code] == []
