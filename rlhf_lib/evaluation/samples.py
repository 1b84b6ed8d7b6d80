"""The row type of samples.

A sample is a row of data/samples/<policy>.jsonl: id (of the prompt), source, mode, draw (its number among the prompt's
samples), prompt, response, reward and judge (of the two reward models, normalised), length (tokens, with the stop),
finished, logprob and ref_logprob (nats, of the policy and of the SFT model at the sampling temperature) and, where the
source has a rule for true quality, gold and format. Without a reward model, or a judge, there is no such number.

Mode "dataset" holds the test row's own scored responses: draw is the place in the row, log-probs are at temperature 1,
score is the dataset's (None where it has none) and chosen is true for the first response of the highest score, or for
the first one where there is no score.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Sample = dict[str, Any]

DATASET = "dataset"  # the mode of the test rows' own responses
CANDIDATE = "candidate"  # the mode of the answers from which best-of-n chooses


def mode_name(temperature: float) -> str:
    """The name of a sampling temperature in metrics: t1, t0_7, greedy. DVC reads a dot as a level."""
    return f"t{temperature:g}".replace(".", "_") if temperature > 0 else "greedy"


def in_mode(samples: Iterable[Sample], mode: str) -> list[Sample]:
    """The samples of one mode, in their order."""
    return [sample for sample in samples if sample["mode"] == mode]
