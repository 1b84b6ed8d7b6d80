"""Fixtures of the tests here."""
