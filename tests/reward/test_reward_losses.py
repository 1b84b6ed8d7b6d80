"""The losses of reward models, by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from rlhf_lib.reward.losses import count_right, ordered_pairs, ranking_loss, regression_loss


def softplus(x):
    """-log sigmoid(-x)"""
    return math.log(1 + math.exp(x))


ONE, TWO = tensor([0, 0, 0]), tensor([0, 0, 1, 1, 1])


def test_pairs_are_of_one_prompt_and_of_different_scores():
    better, worse = ordered_pairs(tensor([1.0, 3.0, 7.0, 7.0, 2.0]), TWO)
    assert list(zip(better.tolist(), worse.tolist(), strict=True)) == [(1, 0), (2, 4), (3, 4)]


def test_ranking_is_the_mean_over_the_pairs_of_a_prompt():
    loss = ranking_loss(tensor([2.0, 1.0, -1.0]), tensor([9.0, 5.0, 7.0]), ONE)
    # the order of the scores is first, third, second
    assert loss.item() == pytest.approx((softplus(-3) + softplus(-1) + softplus(2)) / 3)


def test_equal_scores_are_no_pair():
    loss = ranking_loss(tensor([2.0, 1.0, -1.0]), tensor([5.0, 5.0, 1.0]), ONE)
    assert loss.item() == pytest.approx((softplus(-3) + softplus(-2)) / 2)


def test_a_prompt_counts_once_however_many_answers_it_has():
    loss = ranking_loss(tensor([1.0, 0.0, 2.0, 1.0, -1.0]), tensor([1.0, 0.0, 9.0, 7.0, 5.0]), TWO)
    assert loss.item() == pytest.approx((softplus(-1) + (softplus(-1) + softplus(-3) + softplus(-2)) / 3) / 2)


def test_a_margin_is_taken_from_the_difference_of_its_prompt():
    loss = ranking_loss(
        tensor([1.0, 0.0, 0.5, 2.0]), tensor([1.0, 0.0, 1.0, 0.0]), tensor([0, 0, 1, 1]), tensor([2.5, 0.0])
    )
    assert loss.item() == pytest.approx((softplus(2.5 - 1) + softplus(1.5)) / 2)


def test_centring_adds_the_squared_sum_of_each_pair():
    rewards, scores = tensor([2.0, 1.0, -4.0]), tensor([5.0, 5.0, 1.0])
    plain = (softplus(-6) + softplus(-5)) / 2
    assert ranking_loss(rewards, scores, ONE, centring=0.1).item() == pytest.approx(plain + 0.1 * (4 + 9) / 2)


@pytest.mark.parametrize(
    ("kind", "expected"), [("mse", (0.25 + (4 + 1 + 1) / 3) / 2), ("mae", (0.5 + (2 + 1 + 1) / 3) / 2)]
)
def test_regression_is_the_error_of_each_answer(kind, expected):
    rewards, targets = tensor([1.5, 0.5, 2.0, -1.0, 0.0]), tensor([1.0, 1.0, 0.0, 0.0, 1.0])
    assert regression_loss(rewards, targets, TWO, kind).item() == pytest.approx(expected)


def test_right_pairs_are_counted_and_ties_are_half():
    scores = tensor([1.0, 0.0, 3.0, 2.0, 1.0])
    assert count_right(tensor([1.0, 0.0, 5.0, 5.0, 9.0]), scores, TWO) == (1.5, 4)
    assert count_right(tensor([1.0, 0.0]), tensor([2.0, 2.0]), tensor([0, 0])) == (0.0, 0)


ANSWERS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.floats(-3, 3)), min_size=2, max_size=12)


@given(ANSWERS, st.randoms(use_true_random=False), st.floats(-2, 2))
def test_ranking_does_not_depend_on_the_order_of_the_answers_or_on_a_shift(answers, random, shift):
    shuffled = random.sample(answers, len(answers))
    losses = []
    for rows, add in ((answers, 0.0), (shuffled, shift)):
        groups, scores, rewards = (tensor(column) for column in zip(*rows, strict=True))
        if not len(ordered_pairs(scores.float(), groups)[0]):
            return
        losses.append(ranking_loss(rewards + add, scores.float(), groups).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize("kind", ["ranking", "mse"])
def test_the_loss_of_a_batch_is_the_mean_of_its_prompts_losses(kind):
    torch.manual_seed(0)
    rewards, values = torch.randn(9), torch.randn(9)
    groups = tensor([0, 0, 1, 1, 1, 2, 2, 2, 2])

    def loss(chosen):
        arguments = rewards[chosen], values[chosen], groups[chosen]
        return (ranking_loss(*arguments) if kind == "ranking" else regression_loss(*arguments, kind)).item()

    alone = [loss(groups == number) for number in range(3)]
    assert loss(groups >= 0) == pytest.approx(sum(alone) / 3)
