"""Random numbers that depend on what they are for, and on nothing that was drawn before."""

from __future__ import annotations

import hashlib

import torch


def seeded(*parts: int | str) -> torch.Generator:
    """A generator for a purpose and its numbers: what it draws depends on nothing that was drawn before."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
