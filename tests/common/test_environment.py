"""What a stage sets before it imports a heavy library."""

import subprocess
import sys

WARNS = """
import warnings
from rlhf_lib.common import environment
environment.prepare()
warnings.warn("`is_gradient_checkpointing` is deprecated", FutureWarning)
warnings.warn("something else", FutureWarning)
"""


def test_what_peft_makes_transformers_warn_of_is_not_shown():
    ran = subprocess.run([sys.executable, "-c", WARNS], capture_output=True, text=True, check=True)
    assert "something else" in ran.stderr
    assert "is_gradient_checkpointing" not in ran.stderr
