"""How many matrix products an update is, and how fast the machine multiplies; whatever else is computed counts for
nothing."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ppo.worker import ON_GPU, clock

SIDE = 8192 if ON_GPU else 2048  # of the square matrices whose product shows what the machine can do
SECONDS = 0.5  # that they are multiplied for


def matrix_gflops(dtype: torch.dtype) -> float:
    """GFLOP/s, by the benchmark's clock, of large square matrices now: the fastest of half a second's products."""
    left, right = (torch.randn(SIDE, SIDE, device="cuda" if ON_GPU else "cpu").to(dtype) for _ in range(2))
    rates: list[float] = []
    until = time.perf_counter() + SECONDS
    while len(rates) < 3 or time.perf_counter() < until:
        start = clock()
        torch.mm(left, right)
        rates.append(2e-9 * SIDE**3 / (clock() - start))
    return max(rates)


class Arithmetic:
    """What a side's turns report of it: `peak_gflops` right before each update, and of the last one `gflop`, its matrix
    products. It is for nothing else, because counting takes time and memory."""

    def __init__(self, precision: str) -> None:
        self.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self._counter: FlopCounterMode | None = None
        self._peak = 0.0

    def begin(self, is_last: bool) -> None:
        self._peak = matrix_gflops(self.dtype)
        if is_last:
            self._counter = FlopCounterMode(display=False).__enter__()

    def measured(self) -> dict[str, Any]:
        """What is reported of the update that ends now."""
        counter, self._counter = self._counter, None
        if counter is None:
            return {"peak_gflops": self._peak}
        counter.__exit__(None, None, None)
        return {"peak_gflops": self._peak, "gflop": counter.get_total_flops() / 1e9}
