"""The plan of the house: no circle of imports, rooms of a page or two, and nothing written twice."""

from __future__ import annotations

import ast
import re
import statistics
from collections import defaultdict
from collections.abc import Iterator

import pytest
from project import ROOT

FOLDERS = ("rlhf_lib", "stages", "benchmarks", "examples", "rewards")
FILES = {path.relative_to(ROOT).as_posix(): path.read_text() for f in FOLDERS for path in (ROOT / f).rglob("*.py")}
TREES = {name: ast.parse(text) for name, text in FILES.items()}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def lines(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def functions(tree: ast.AST) -> list[Function]:
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def module_file(module: str) -> str | None:
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if name in FILES), None)


def imports(tree: ast.Module) -> Iterator[str]:
    """The project's files that a module imports, at its top, inside a function, or for its types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from filter(None, (module_file(name) or module_file(node.module) for name in names))
        elif isinstance(node, ast.Import):
            yield from filter(None, (module_file(alias.name) for alias in node.names))


def test_no_import_goes_in_a_circle():
    graph = {name: set(imports(tree)) - {name} for name, tree in TREES.items()}
    while leaves := [name for name, targets in graph.items() if not targets]:
        for leaf in leaves:
            del graph[leaf]
        for targets in graph.values():
            targets.difference_update(leaves)
    assert not graph, f"in a circle, or behind one: {sorted(graph)}"


def test_a_module_has_at_most_300_lines():
    tests = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    assert [name for name, text in {**FILES, **tests}.items() if len(text.splitlines()) > 300] == []


def test_no_two_test_files_have_one_name():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]  # pytest imports them by it
    assert sorted(names) == sorted(set(names))


def test_functions_are_short():
    sizes = {f"{name}:{f.lineno} {f.name}": lines(f) for name, tree in TREES.items() for f in functions(tree)}
    assert [name for name, size in sizes.items() if size > 50] == []
    assert statistics.median(sizes.values()) <= 10


@pytest.mark.parametrize("name", [name for name in FILES if FILES[name].strip()])
def test_what_is_public_says_what_it_is(name):
    """Modules, and their own functions and classes; of these a `main` says it in its module's docstring."""
    assert ast.get_docstring(TREES[name]), "the module has no docstring"
    if name.startswith("rlhf_lib/"):
        own = [node for node in TREES[name].body if isinstance(node, Function | ast.ClassDef)]
        public = [node for node in own if not node.name.startswith("_")]
        assert [node.name for node in public if not ast.get_docstring(node)] == []


def statements(text: str) -> list[str]:
    """The lines of a module without comments, imports and blank ones, and without those that are brackets alone."""
    without_imports = re.sub(r"^\s*(from [\w.]+ )?import (\([^)]*\)|.*)$", "", text, flags=re.MULTILINE)
    kept = (line.partition("  #")[0].strip() for line in without_imports.splitlines())
    return [line for line in kept if any(c.isalnum() for c in line) and not line.startswith("#")]


def test_no_block_of_six_lines_stands_twice():
    places = defaultdict(list)
    for name, text in FILES.items():
        code = statements(text)
        for start in range(len(code) - 5):
            places["\n".join(code[start : start + 6])].append(name)
    assert {block: found for block, found in places.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith("__init__.py")])
def test_a_package_runs_no_code_of_its_own(name):
    """So a stage need not depend on the packages above the modules that it imports. The first imports what every
    command begins with."""
    assert len(TREES[name].body) <= (2 if name == "rlhf_lib/__init__.py" else 1)
