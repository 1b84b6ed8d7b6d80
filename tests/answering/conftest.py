"""Fixtures of the tests here."""

from tiny_models import in_fp32, tiny, tokenizer

__all__ = ["in_fp32", "tiny", "tokenizer"]
