"""Fixtures of the tests here."""

from rft_project import project
from tiny_models import ending, in_fp32, tiny, tokenizer

__all__ = ["ending", "in_fp32", "project", "tiny", "tokenizer"]
