"""Fixtures of the tests here."""

from negative_pairs import project
from tiny_models import compute, ending, in_fp32, tiny, tokenizer

__all__ = ["compute", "ending", "in_fp32", "project", "tiny", "tokenizer"]
