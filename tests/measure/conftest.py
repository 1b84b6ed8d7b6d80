"""Fixtures of the tests here."""

from ppo_trainers import build
from tiny_models import checkpoints, ending, in_fp32, tiny

__all__ = ["build", "checkpoints", "ending", "in_fp32", "tiny"]
