"""Fixtures of the tests here."""

from ppo_trainers import build
from tiny_models import checkpoints, compute, ending, in_fp32, tiny

__all__ = ["build", "checkpoints", "compute", "ending", "in_fp32", "tiny"]
