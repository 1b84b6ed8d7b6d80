"""Fixtures of the tests here."""

from tiny_models import tiny  # noqa: F401
