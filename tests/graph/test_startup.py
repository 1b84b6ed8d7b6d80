"""What stages import: those that train nothing leave the trainers alone, which take seconds to import."""

import ast
import subprocess
import sys

import pytest
from project import ROOT

HEAVY = ("torch", "transformers")
TRAINERS = ("trl", "transformers.trainer", "datasets", "pandas")

# Imports all that the stage's file does, inside its functions too, once its environment is prepared.
CODE = """
import sys
from rlhf_lib.common import environment
environment.prepare()
{imports}
print(*[name for name in {unwanted} if name in sys.modules])
"""


def imported(stage: str, unwanted: tuple[str, ...]) -> list[str]:
    """Which of the unwanted modules are there once a stage has imported what it does."""
    tree = ast.parse((ROOT / "stages" / f"{stage}.py").read_text(encoding="utf-8"))
    imports = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    code = CODE.format(imports="\n".join(imports), unwanted=unwanted)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.parametrize("stage", ["base", "reference", "evaluate", "best_of_n", "overoptimisation"])
def test_a_stage_that_trains_nothing_imports_no_trainer(stage):
    assert imported(stage, TRAINERS) == []


@pytest.mark.parametrize("stage", ["load", "prepare", "measure", "llm_judge", "select", "report"])
def test_a_stage_without_a_model_imports_no_torch(stage):
    assert imported(stage, (*HEAVY, *TRAINERS)) == []
