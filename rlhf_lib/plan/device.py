"""Where the stages will run: this process's device, or a GPU that is not here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlhf_lib.models import hardware
from rlhf_lib.training.memory import FP32, Compute


@dataclass(frozen=True)
class Device:
    """kind: cpu, cuda or mps. Bytes: of its memory, those that are free, and those of a number in matrix products."""

    kind: str
    total: float
    free: float
    value: int

    @classmethod
    def here(cls) -> Device:
        """What `compute.device` names on this machine."""
        kind = hardware.device().type
        free, total = torch.cuda.mem_get_info() if kind == "cuda" else (_free_bytes(), _free_bytes())
        return cls(kind, float(total), float(free), hardware.number_bytes())

    @classmethod
    def gpu(cls, gigabytes: float, precision: str = "auto") -> Device:
        """A GPU of so many GB (10^9 bytes) that has bf16, with nothing on it."""
        return cls("cuda", gigabytes * 1e9, gigabytes * 1e9, FP32 if precision == "fp32" else FP32 // 2)

    def compute(self, params: Any) -> Compute:
        """How it computes, as `rlhf_lib/models/hardware.py` decides it by the params of section `compute`."""
        is_cpu = self.kind == "cpu"
        fused = not is_cpu or params.attn_implementation not in ("auto", "eager")
        return Compute(self.value, bool(params.gradient_checkpointing), not fused, few_calls=not is_cpu)


def _free_bytes() -> float:
    """Memory that the system could still give (`MemAvailable`), or all there is."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable"))
