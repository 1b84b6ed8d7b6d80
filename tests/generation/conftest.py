"""Fixtures of the tests here."""

from tiny_models import checkpoints, ending, in_fp32, policy, tiny, tokenizer

__all__ = ["checkpoints", "ending", "in_fp32", "policy", "tiny", "tokenizer"]
