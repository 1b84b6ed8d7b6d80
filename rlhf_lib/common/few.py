"""The word that goes with a number from few rows."""

FEW = 30  # held-out rows below which a standard error is itself too rough to rely on


def few(count: int) -> str:
    """` (n = 7: too few to tell)` of fewer than 30 rows, to put behind a number; empty of more."""
    return f" (n = {count}: too few to tell)" if count < FEW else ""
