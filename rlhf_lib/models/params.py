"""The `compute` section: where and how every stage computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Choice = Literal["auto", "fp32", "bf16", "fp16"]
Frozen = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class ComputeParams:
    """Device, precision, attention, checkpointing and compilation."""

    device: Literal["auto", "cuda", "mps", "cpu"]
    precision: Choice
    frozen_dtype: Frozen
    tf32: bool | None
    attn_implementation: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3"]
    gradient_checkpointing: bool | None
    torch_compile: bool


AUTO = ComputeParams(
    device="auto",
    precision="auto",
    frozen_dtype="auto",
    tf32=None,
    attn_implementation="auto",
    gradient_checkpointing=None,
    torch_compile=False,
)
