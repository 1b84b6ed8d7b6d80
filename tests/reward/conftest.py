"""Fixtures of the tests here."""

from reward_trainers import splits
from tiny_models import checkpoints, compute, in_fp32, tiny

__all__ = ["checkpoints", "compute", "in_fp32", "splits", "tiny"]
