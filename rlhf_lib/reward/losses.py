"""Losses of reward models on the answers of several prompts at once, as pure functions.

Of N answers: `rewards` (N,), what the model gives; `groups` (N,), the number of each one's prompt in the batch;
`scores` or `targets` (N,), what the data say. A prompt counts once in every loss, however many answers it has, so that
the gradient does not depend on which prompts share a forward pass.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def ordered_pairs(scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (P,) of the better and of the worse answer of every pair of one prompt whose scores differ."""
    same_prompt = groups.unsqueeze(1) == groups.unsqueeze(0)
    better, worse = (same_prompt & (scores.unsqueeze(1) > scores.unsqueeze(0))).nonzero(as_tuple=True)
    return better, worse


def ranking_loss(
    rewards: Tensor, scores: Tensor, groups: Tensor, margins: Tensor | None = None, centring: float | None = None
) -> Tensor:
    """-log sigmoid(better - worse), mean over a prompt's pairs with different scores, then over the prompts.

    InstructGPT's loss [Ouyang 2022, arXiv:2203.02155, equation 1]; of two answers, that of Bradley and Terry.
    `margins`, one a prompt, are taken from the difference [Touvron 2023, arXiv:2307.09288, equation 2]. `centring`
    weighs (better + worse)^2 beside it [Eisenstein 2023, arXiv:2312.09244, equation 2].
    """
    better, worse = ordered_pairs(scores, groups)
    of_pair = groups[better]
    difference = rewards[better] - rewards[worse]
    losses = -functional.logsigmoid(difference if margins is None else difference - margins[of_pair])
    if centring is not None:
        losses = losses + centring * (rewards[better] + rewards[worse]) ** 2
    return mean_by_group(losses, of_pair)


def regression_loss(rewards: Tensor, targets: Tensor, groups: Tensor, kind: str) -> Tensor:
    """Squared (`mse`) or absolute (`mae`) error, mean over a prompt's answers, then over the prompts."""
    errors = rewards - targets
    return mean_by_group(errors**2 if kind == "mse" else errors.abs(), groups)


def mean_by_group(values: Tensor, groups: Tensor) -> Tensor:
    """The mean over the groups that occur of the mean of each one's values."""
    _, numbers, sizes = groups.unique(return_inverse=True, return_counts=True)
    sums = values.new_zeros(len(sizes)).index_add(0, numbers, values)
    return (sums / sizes).mean()


def count_right(rewards: Tensor, scores: Tensor, groups: Tensor) -> tuple[float, int]:
    """How many of the pairs with different scores the rewards order rightly (a tie counts half), and how many there
    are."""
    better, worse = ordered_pairs(scores, groups)
    differences = rewards[better] - rewards[worse]
    return ((differences > 0).sum() + 0.5 * (differences == 0).sum()).item(), len(better)
