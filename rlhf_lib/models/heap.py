"""What the C library keeps of memory that nothing uses any more."""

from __future__ import annotations

import ctypes

# glibc's malloc.h: blocks of so many bytes are the system's again once they are freed. Where a program does not set it,
# it grows with the blocks that are freed, up to 32 MiB.
_M_MMAP_THRESHOLD = -3
_RETURNED = 2 << 20


def return_blocks() -> None:
    """Give blocks of 2 MiB and more back to the system as soon as they are free; where there is no glibc, nothing.

    In its heap, the holes that a layer's gradients leave are filled with smaller activations, and the next gradients
    take more. At GPT-2's size it saves a tenth of the memory and costs a fifth of the time, as the system clears pages
    before it hands them out (benchmarks/README.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _RETURNED)
