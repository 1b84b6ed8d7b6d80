"""What a process keeps of memory that it has freed, and what it costs to have it again."""

import ctypes
import resource
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

of_blocks, at_the_end = sys.argv[1:]
if of_blocks:
    getattr(heap, of_blocks)()
filled(24)  # glibc now takes blocks up to this size from its heap
before = resident()
blocks = [(filled(3), torch.ones(16)) for _ in range(100)]
kept = [small for _, small in blocks]
held = resident() - before
del blocks
if at_the_end:
    getattr(heap, at_the_end)()
print(held, resident() - before)
"""


# A block larger than any that glibc keeps by itself is made and freed, step after step. At first, small ones take
# pieces of where it was, and it is put elsewhere.
STEPS = """
import resource
import sys
import torch
from rlhf_lib.models import heap

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        torch.ones(40 << 18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

getattr(heap, sys.argv[1])()
faults(100)
print(faults(10))
"""

needs_glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc"
)


def printed(code: str, *arguments: str) -> list[int]:
    process = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return [int(number) for number in process.stdout.split()]


@pytest.mark.slow
@needs_glibc
@pytest.mark.parametrize(
    ("of_blocks", "at_the_end", "least", "most"),
    [
        ("return_blocks", "", 0, 10),
        ("", "", 200, 300),  # else there is nothing to return, and the function may go
        ("keep_blocks", "", 200, 300),
        ("keep_blocks", "clear", -30, 10),  # what was freed before goes, too
    ],
)
def test_freed_blocks_are_the_systems_again(of_blocks, at_the_end, least, most):
    held, left = printed(FREED, of_blocks, at_the_end)  # MiB that they took, and that are left once they are freed
    assert held >= 270
    assert least <= left <= most


@needs_glibc
def test_kept_blocks_are_used_again_without_the_system():
    pages = 10 * (40 << 20) // resource.getpagesize()
    assert printed(STEPS, "keep_blocks")[0] < pages / 100
    assert printed(STEPS, "return_blocks")[0] >= pages / 2**9  # huge pages are 512 of these
