"""What a stage sets before it imports a heavy library."""

import os
import subprocess
import sys

import pytest

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


SHOWS = """
import os
from rlhf_lib.common import environment
environment.prepare()
print(os.environ["CUDA_VISIBLE_DEVICES"], os.environ.get("PYTORCH_ALLOC_CONF"))
"""
OWN = {"CUDA_VISIBLE_DEVICES", "WORLD_SIZE", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}


def shown(**given):
    env = {name: value for name, value in os.environ.items() if name not in OWN} | given
    return subprocess.run([sys.executable, "-c", SHOWS], env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ({}, "0"),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "3"),
        ({"CUDA_VISIBLE_DEVICES": "2,3"}, "2"),  # as Slurm names a job's GPUs: Trainer would use both in threads
        ({"CUDA_VISIBLE_DEVICES": ""}, ""),
        ({"CUDA_VISIBLE_DEVICES": "2,3", "WORLD_SIZE": "2"}, "2,3"),  # each process takes that of its rank
    ],
)
def test_a_process_that_works_alone_sees_one_gpu(given, seen):
    assert shown(**given).split(" ")[0] == seen


def test_memory_of_a_gpu_is_in_blocks_that_grow_unless_the_user_says_otherwise():
    assert shown().split()[1] == "expandable_segments:True"
    assert shown(PYTORCH_ALLOC_CONF="backend:cudaMallocAsync").split()[1] == "backend:cudaMallocAsync"
    assert shown(PYTORCH_CUDA_ALLOC_CONF="max_split_size_mb:64").split()[1] == "None"
