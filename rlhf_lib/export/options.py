"""What an export can be told: names that need no heavy library."""

from __future__ import annotations

from dataclasses import dataclass

# as compute.precision calls them: as PyTorch does, and as llama.cpp does
DTYPES = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}
GGUF_TYPES = {"bf16": "bf16", "fp32": "f32", "fp16": "f16"}


@dataclass(frozen=True)
class License:
    """As the hub wants it: its identifier, and name and link of one that has none (`other`)."""

    id: str = "unknown"
    name: str | None = None
    link: str | None = None
