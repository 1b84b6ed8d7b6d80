"""Fixtures of the tests here."""

from tiny_models import ending, in_fp32, policy, tiny, tokenizer

__all__ = ["ending", "in_fp32", "policy", "tiny", "tokenizer"]
