"""Fixtures of the tests here."""

from tiny_models import checkpoints, in_fp32

__all__ = ["checkpoints", "in_fp32"]
