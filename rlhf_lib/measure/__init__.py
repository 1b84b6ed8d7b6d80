"""Stages measure and overoptimisation: numbers of samples, with standard errors."""
