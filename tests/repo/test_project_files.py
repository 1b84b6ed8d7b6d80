"""What Make, pip, CI and DVC read beside the pipeline: each names what is there."""

import importlib
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from project import DEMO, ROOT

from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.inputs.graph import Graph, lies_in

LEFTOVERS = ["x.py~", ".x.py.swp", ".x.py.swo", ".#x.py", "#x.py#", ".DS_Store", ".ipynb_checkpoints/x.py", ".idea/x"]
LEFTOVERS += [".vscode/x", "__pycache__/x.cpython-311.pyc", "x.py.orig"]


def test_every_module_of_the_makefile_can_be_run():
    modules = set(re.findall(r"python -m ((?:rlhf_lib|stages|benchmarks)\S*)", (ROOT / "Makefile").read_text()))
    assert len(modules) > 10
    for name in modules:
        spec = find_spec(name)
        assert spec, name
        assert spec.submodule_search_locations is None or find_spec(f"{name}.__main__"), name


def test_every_command_that_pip_installs_is_a_function():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"rlhf-plan", "rlhf-preset", "rlhf-chat"}
    for entry in scripts.values():
        module, _, function = entry.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_every_file_beside_the_modules_is_package_data():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    tracked = subprocess.check_output(["git", "ls-files", "rlhf_lib", "stages"], cwd=ROOT, text=True).split()
    others = [Path(name) for name in tracked if not name.endswith(".py")]
    assert others and not [path for path in others if not any(path.match(pattern) for pattern in patterns)]


def test_ci_runs_what_a_developer_runs():
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["ci"]
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert all(re.search(r"@[0-9a-f]{40}$", step["uses"]) for step in job["steps"][:-1])


@pytest.mark.parametrize("folder", ["rlhf_lib/common", "stages"])
def test_dvc_ignores_what_an_editor_leaves_behind(folder):
    names = [f"{folder}/{name}" for name in LEFTOVERS]
    command = [sys.executable, "-m", "dvc", "check-ignore", *names, f"{folder}/x.py"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split() == names


def test_clean_deletes_what_stages_make():
    """But metrics, which git has; and nothing else of data/ and models/, where the user's own files may lie."""
    recipe = (ROOT / "Makefile").read_text().partition("\nclean:")[2].partition("\n\n")[0]
    named = {word for line in recipe.splitlines() if "rm -rf" in line for word in line.split()}
    made = {out for out, _ in Graph.read(load_yaml(DEMO), ROOT / "dvc.yaml").makers() if not out.startswith("metrics/")}
    assert {out for out in made if not any(lies_in(out, word) for word in named)} == set()
    assert named.isdisjoint(("data", "models"))
