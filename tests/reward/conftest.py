"""Fixtures of the tests here."""

from reward_trainers import splits
from tiny_models import checkpoints, in_fp32, tiny

__all__ = ["checkpoints", "in_fp32", "splits", "tiny"]
