"""The tests of light code start without the libraries of models."""

import subprocess
import sys

from project import ROOT

LIGHT = [f"tests/{folder}" for folder in ("common", "data", "demo", "experiments", "prune", "report", "watch")]
HEAVY = {"torch", "transformers", "trl", "datasets"}
# collects the tests, plans their fixtures, and then tells what was imported
CODE = f"""
import sys
import pytest

code = pytest.main(["--setup-plan", "-p", "no:cacheprovider", *sys.argv[1:]])
print(code == 0, sorted({HEAVY} & set(sys.modules)))
"""


def test_light_tests_import_no_torch():
    done = subprocess.run([sys.executable, "-c", CODE, *LIGHT], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert "in_fp32" not in done.stdout  # it sets up torch
    assert done.stdout.splitlines()[-1] == "True []", done.stdout[-3000:] + done.stderr[-3000:]
