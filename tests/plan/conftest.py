"""Fixtures of the tests here."""

from tiny_models import compute, in_fp32

__all__ = ["compute", "in_fp32"]
