"""Fixtures of the tests here."""

from tiny_models import checkpoints, compute, in_fp32, tiny, tokenizer

__all__ = ["checkpoints", "compute", "in_fp32", "tiny", "tokenizer"]
