"""What stages import: those that train nothing leave the trainers alone, which take seconds to import."""

import ast
import subprocess
import sys

from project import ROOT

HEAVY = ("torch", "transformers")
TRAINERS = ("trl", "transformers.trainer", "datasets", "pandas")

# Imports all that the stages' files do, inside its functions too, once its environment is prepared.
CODE = """
import sys
sys.modules["sklearn"] = None  # nltk imports it where make lm-eval has installed it, and pandas with it
from rlhf_lib.common import environment
environment.prepare()
{imports}
print(*[name for name in {unwanted} if name in sys.modules])
"""


def imported(stages: tuple[str, ...], unwanted: tuple[str, ...]) -> list[str]:
    """Which of the unwanted modules are there once a process has imported what these stages do."""
    trees = [ast.parse((ROOT / "stages" / f"{stage}.py").read_text(encoding="utf-8")) for stage in stages]
    nodes = (node for tree in trees for node in ast.walk(tree))
    imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    code = CODE.format(imports="\n".join(imports), unwanted=unwanted)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_stages_that_train_nothing_import_no_trainer():
    assert imported(("base", "reference", "evaluate", "best_of_n", "overoptimisation"), TRAINERS) == []


def test_stages_without_a_model_import_no_torch():
    assert imported(("load", "prepare", "measure", "llm_judge", "select", "report"), (*HEAVY, *TRAINERS)) == []
