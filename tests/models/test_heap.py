"""What a process keeps of memory that it has freed."""

import ctypes
import subprocess
import sys

import pytest

# Blocks of 3 MiB are freed with a small one left between any two, as a layer's gradients are between activations.
FREED = """
import os
import sys
import torch
from rlhf_lib.models import heap

def resident():
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20

def filled(mib):
    return torch.ones(mib << 18)

if sys.argv[1:]:
    heap.return_blocks()
filled(24)  # glibc now takes blocks up to this size from its heap
before = resident()
blocks = [(filled(3), torch.ones(16)) for _ in range(100)]
kept = [small for _, small in blocks]
held = resident() - before
del blocks
print(held, resident() - before)
"""


def freed(*arguments: str) -> tuple[int, int]:
    """MiB that the blocks took, and that are left of it once they are freed."""
    process = subprocess.run([sys.executable, "-c", FREED, *arguments], capture_output=True, text=True, check=True)
    held, left = map(int, process.stdout.split())
    return held, left


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_freed_blocks_are_the_systems_again():
    held, left = freed("returned")
    assert held >= 290
    assert left <= 10
    held, left = freed()
    assert held >= 290
    assert left >= 200  # else there is nothing to return, and the module may go
