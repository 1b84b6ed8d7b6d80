"""What the C library does with memory that nothing uses any more: it keeps it, or gives it back to the system.

The system clears every page before it hands it out again, which takes longer than most of what is done with a block.
"""

from __future__ import annotations

import ctypes

# Options of glibc's mallopt. How much may be free at the heap's end before it is given back (-1: any amount); from how
# many bytes on blocks are no part of the heap, and given back when they are freed; how many such blocks there may be.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4


def keep_blocks() -> None:
    """Keep freed blocks of any size for what is allocated next; where there is no glibc, nothing.

    A step of training allocates what the step before has freed, and most of the holes fit: the peak grows by a few of
    the largest blocks in the first steps, and then no more. What it saves and costs: docs/performance.md.
    """
    _set({_M_TRIM_THRESHOLD: -1, _M_MMAP_MAX: 0})


def return_blocks() -> None:
    """Give blocks of 2 MiB and more back to the system as soon as they are free; where there is no glibc, nothing.

    In its heap, the holes that a layer's gradients leave are filled with smaller activations, and the next gradients
    take more. At GPT-2's size it saves a tenth of the memory and costs a fifth of the time.
    """
    _set({_M_TRIM_THRESHOLD: 128 << 10, _M_MMAP_THRESHOLD: 2 << 20, _M_MMAP_MAX: 65536})


def clear() -> None:
    """Give the system all pages that are free now, before work on batches of other sizes; where there is no glibc,
    nothing.

    What was kept for a step of training has holes that a validation's batches do not fit into.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set(options: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in options.items():
            mallopt(option, value)
