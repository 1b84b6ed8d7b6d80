"""What README and docs name is there, and README's picture of the graph is of this graph."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from doc_pages import PAGES, blocks, prose
from project import ROOT

from rlhf_lib.common.policies import POLICIES
from rlhf_lib.common.yaml import load_yaml

README_LINES = 220

# ---- what the pages name


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_and_pictures_lead_somewhere(page: Path):
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page.parent / path) if path else ROOT / page
        if not file.exists() or (anchor and anchor not in slugs(file)):
            dead.append(target)
    assert not dead


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_and_folders_that_are_named_are_there(page: Path):
    named = re.findall(r"\b((?:rlhf_lib|stages|tests|benchmarks|launch|presets|examples|docs)/[\w./-]*)", prose(page))
    assert not [name for name in named if not (ROOT / name.rstrip(".")).exists()]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_modules_that_are_named_can_be_run(page: Path):
    def runs(module: str) -> bool:
        file = ROOT.joinpath(*module.split("."))
        return file.with_suffix(".py").is_file() or (file / "__main__.py").is_file() or bool(elsewhere(module))

    def elsewhere(module: str) -> object:
        return not (ROOT / module.split(".")[0]).exists() and importlib.util.find_spec(module)

    named = re.findall(r"python -m ([\w.]*\w)(?!\.?<|\w)", prose(page))
    assert not [module for module in named if module != "stages" and not runs(module)]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_targets_and_presets_that_are_named_exist(page: Path):
    targets = re.findall(r"^([a-z-]+):", prose(Path("Makefile")), re.MULTILINE)
    presets = [file.stem for file in (ROOT / "presets").glob("*.yaml")]
    named = re.findall(r"(?:`|^ *)make ([a-z-]+)", prose(page), re.MULTILINE)
    assert not set(named) - set(targets)
    assert not set(re.findall(r"rlhf_lib\.preset ([\w.-]+)", prose(page))) - {*presets, "demo", "--help"}


def stages() -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml, with those of a foreach one by one; select stands for every policy that it may show."""
    found: dict[str, dict[str, Any]] = {}
    for name, stage in load_yaml(ROOT / "dvc.yaml")["stages"].items():
        for key in stage.get("foreach", [""]):
            text = json.dumps(stage.get("do", stage)).replace("${item}", key).replace("${key}", key)
            if isinstance(stage.get("foreach"), dict):
                text = text.replace("${item.baseline}", stage["foreach"][key]["baseline"])
            found[f"{name}@{key}" if key else name] = json.loads(text)
    show = found["select"]["deps"]
    found["select"]["deps"] = [dep.replace("${policy}", name) for dep in show for name in POLICIES]
    return found


def graph() -> set[tuple[str, str]]:
    """(a, b) wherever stage b reads what stage a writes."""
    wrote = {name: outs_of(stage) for name, stage in stages().items()}
    return {
        (writer, name)
        for name, stage in stages().items()
        for writer, outs in wrote.items()
        if any(
            dep == out or dep.startswith(f"{out}/") or out.startswith(f"{dep}/")
            for dep in stage.get("deps", [])
            for out in outs
        )
    }


def outs_of(stage: dict[str, Any]) -> list[str]:
    outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return [out if isinstance(out, str) else next(iter(out)) for out in outs]


def drawn() -> set[tuple[str, str]]:
    """The edges between stages of README's picture of the graph."""
    (lines,) = blocks(Path("README.md"), "mermaid")
    names = dict(re.findall(r"(\w+)\[+\(?([\w@/]+)", "\n".join(lines)))
    edges: set[tuple[str, str]] = set()
    for line in lines[1:]:
        groups = [[re.split(r"\[", node)[0].strip() for node in part.split("&")] for part in line.split("-->")]
        for before, after in itertools.pairwise(groups):
            edges |= {(names.get(a, a), names.get(b, b)) for a in before for b in after}
    return edges


def test_the_picture_of_the_graph_is_of_this_graph():
    edges = {(a, b) for a, b in drawn() if not a.endswith("/")}
    assert not edges - graph()
    assert {name for edge in edges for name in edge} == set(stages())


def test_the_table_of_the_graph_has_every_stage():
    listed = re.findall(r"^\| (\w+) \| .* \| .* \|$", prose(Path("README.md")), re.MULTILINE)
    assert listed[1:] == list(dict.fromkeys(name.split("@")[0] for name in stages()))


def test_readme_is_short():
    assert len(prose(Path("README.md")).splitlines()) <= README_LINES


def test_the_changelog_begins_with_this_version():
    version = tomllib.loads(prose(Path("pyproject.toml")))["project"]["version"]
    assert re.findall(r"^## (\S+)", prose(Path("CHANGELOG.md")), re.MULTILINE)[0] == version
