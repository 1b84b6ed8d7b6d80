"""The clock on the wall and the memory of the device at hand, for `benchmarks.gpu`."""

from __future__ import annotations

import gc
import time

from benchmarks.ppo import worker


def free() -> None:
    """Let go of what was measured before: a trainer and its model refer to each other, and PyTorch keeps what a GPU
    gave it, where vLLM would find no room."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()  # without a GPU, nothing


class Clock:
    """Seconds on the wall, with the device's work waited for."""

    def __init__(self) -> None:
        import torch

        from rlhf_lib.models import hardware

        self.cuda = torch.cuda if hardware.device().type == "cuda" else None
        worker.reset_peak()
        if self.cuda:
            self.cuda.reset_peak_memory_stats()
        self.start = self.now()

    def now(self) -> float:
        if self.cuda:
            self.cuda.synchronize()
        return time.perf_counter()

    def peak_mb(self) -> float:
        """The most memory in MiB: the GPU's, or without one the process's."""
        return self.cuda.max_memory_allocated() / 2**20 if self.cuda else worker.peak_mb()
