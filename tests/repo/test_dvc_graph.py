"""dvc.yaml tells the truth: a stage's deps hold the project files it imports, its params are the sections it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from project import ROOT

from rlhf_lib.check.sections import SECTIONS
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.inputs.named import STAGES as INPUTS

DECLARED = load_yaml(ROOT / "dvc.yaml")["stages"]
# evaluate stands for its three instances, whose code is the same
STAGES = {name: stage.get("do", stage) for name, stage in DECLARED.items()}


def module_file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported_modules(file: Path) -> Iterator[str]:
    """Every module that a file may import, at its top or inside a function."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def project_files(*modules: str) -> set[str]:
    """The project's files that importing `modules` may read: modules, and templates, styles and scripts beside
    the module of their name."""
    seen: set[Path] = set()
    todo = list(modules)
    while todo:
        file = module_file(todo.pop())
        if file is None or file in seen or not file.stat().st_size:
            continue
        seen.add(file)
        todo += [name for name in imported_modules(file) if name.split(".")[0] in ("rlhf_lib", "stages")]
    beside = {file.with_suffix(suffix) for file in seen for suffix in (".jinja", ".css", ".js")}
    return {file.relative_to(ROOT).as_posix() for file in seen | {file for file in beside if file.is_file()}}


def stage_module(stage: dict) -> str:
    program, flag, module = stage["cmd"].split()[:3]
    assert program in ("python", "${launch}") and flag == "-m"
    return module


def code_deps(stage: dict) -> list[str]:
    return [dep for dep in stage["deps"] if dep.startswith(("rlhf_lib/", "stages/"))]


def lies_in(file: str, dep: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


@pytest.mark.parametrize("name", sorted(set(STAGES) - {"inputs"}))  # which always runs
def test_code_deps_cover_the_imports_and_none_is_idle(name):
    stage = STAGES[name]
    needed = project_files(stage_module(stage))
    bare = sorted(file for file in needed if not any(lies_in(file, dep) for dep in code_deps(stage)))
    idle = sorted(dep for dep in code_deps(stage) if not any(lies_in(file, dep) for file in needed))
    assert not bare, f"{name}: in no dep: {bare}"
    assert not idle, f"{name}: nothing of it is imported: {idle}"


def test_every_stage_that_reads_what_params_name_has_its_manifest_as_a_dep():
    assert STAGES["inputs"]["always_changed"] is True and "deps" not in STAGES["inputs"]
    with_manifest = {name for name, stage in STAGES.items() if f"data/inputs/{name}.json" in stage.get("deps", [])}
    assert with_manifest == set(INPUTS)


@pytest.mark.parametrize("name", STAGES)
def test_params_are_the_sections_read(name):
    file = module_file(stage_module(STAGES[name]))
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    reads = [call for call in calls if ast.unparse(call.func) in ("read", "schema.read")]
    sections = set(SECTIONS) if name == "report" else {call.args[0].value for call in reads}  # the page shows them all
    instances = DECLARED[name].get("foreach", {})
    own = {item["param"] for item in instances.values()} if "${item.param}" in STAGES[name].get("params", []) else set()
    assert sections == set(STAGES[name].get("params", [])) - {"${item.param}"} | own


def test_the_stages_that_compute_with_models_are_launched():
    """But `base`, which computes nothing, and `negatives`, whose log of answers has one writer."""
    models = {name for name, stage in STAGES.items() if "compute" in stage.get("params", [])}
    launched = {name for name, stage in STAGES.items() if stage["cmd"].startswith("${launch} ")}
    assert models - launched == {"negatives", "report"} and not launched - models


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_has_one_name(name):
    assert stage_module(STAGES[name]) == f"stages.{name}"
    assert STAGES[name]["desc"]


@pytest.mark.parametrize("name", STAGES)
def test_the_run_cache_is_on(name):
    """`persist: true` or `cache: false` on an out would switch it off for the stage."""
    assert all(isinstance(out, str) for out in STAGES[name].get("outs", []))


@pytest.mark.parametrize("name", STAGES)
def test_entrypoints_are_thin(name):
    file = module_file(stage_module(STAGES[name]))
    assert len(file.read_text().splitlines()) <= 65


def test_every_stage_file_is_in_the_graph():
    files = {file.stem for file in (ROOT / "stages").glob("*.py")} - {"__init__"}
    assert files == set(STAGES)


@pytest.mark.parametrize("name", ["load", "prepare", "select"])
def test_light_stages_import_no_torch(name):
    heavy = {"torch", "transformers", "trl", "datasets"}
    for path in project_files(f"stages.{name}"):
        if path.endswith(".py"):
            top = ast.parse((ROOT / path).read_text()).body
            names = {m.split(".")[0] for node in top for m in _top_import(node)}
            assert not names & heavy, path


def _top_import(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []
