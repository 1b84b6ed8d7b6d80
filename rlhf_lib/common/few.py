"""The word that goes with a number from few rows."""

FEW = 30  # held-out rows below which a standard error is itself too rough to rely on


def few(count: int) -> str:
    """` (n = 7: too few to tell)` of fewer than 30 rows, to put behind a number; empty of more."""
    return f" (n = {count}: too few to tell)" if count < FEW else ""


def tell(stage: str, **counts: int) -> None:
    """Print a line for each of a stage's held-out files that has few rows: `sft: validation (n = 7: too few to tell)`.

    One without any has no numbers to doubt.
    """
    for what, count in counts.items():
        if count and (remark := few(count)):
            print(f"{stage}: {what}{remark}")
