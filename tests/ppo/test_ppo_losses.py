"""PPO's losses by hand."""

import math

import pytest
import torch
from numbers_by_hand import close, doubles
from torch import tensor

from rlhf_lib.ppo import algos

# ---- Losses


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.0, 2.0, -2.0, False),
        (1.1, 2.0, -2.2, False),
        (1.5, 2.0, -2.4, True),  # not more than 1.2 * 2 is gained
        (0.5, 2.0, -1.0, False),  # a fall of a good token is punished in full
        (0.5, -2.0, 1.6, True),  # not more than 0.8 * 2 is gained
        (1.5, -2.0, 3.0, False),  # a rise of a bad token is punished in full
    ],
)
def test_policy_loss_by_hand(ratio, advantage, loss, clipped):
    old = doubles([-1.0])
    logprobs = (old + math.log(ratio)).requires_grad_()
    result = algos.policy_loss(logprobs, old, doubles([advantage]), cliprange=0.2)
    close(result.ratio, [[ratio]])
    close(result.loss, [[loss]])
    assert result.clipped.tolist() == [[clipped]]
    result.loss.sum().backward()
    close(logprobs.grad, [[0.0 if clipped else -advantage * ratio]])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (1.25, 2.0, -2.5, False),  # within 1.3
        (1.5, 2.0, -2.6, True),  # not more than 1.3 * 2 is gained
        (0.9, -2.0, 1.8, False),
        (0.5, -2.0, 1.6, True),  # below, the clip is still at 0.8
    ],
)
def test_the_ratio_may_have_a_higher_bound_above_than_below(ratio, advantage, loss, clipped):
    old = doubles([0.0])
    result = algos.policy_loss(old + math.log(ratio), old, doubles([advantage]), 0.2, cliprange_high=0.3)
    close(result.loss, [[loss]])
    assert result.clipped.tolist() == [[clipped]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "clipped"),
    [
        (2.5, -2.0, 5.0, False),
        (10.0, -2.0, 6.0, True),  # not 20, but 3 * 2
        (0.5, -2.0, 1.6, True),  # the ordinary clip
        (10.0, 2.0, -2.4, True),  # where the advantage is positive, the ordinary clip
        (0.5, 2.0, -1.0, False),
        (10.0, 0.0, 0.0, False),
    ],
)
def test_the_dual_clip_bounds_the_loss_of_negative_advantages(ratio, advantage, loss, clipped):
    old = doubles([0.0])
    logprobs = (old + math.log(ratio)).requires_grad_()
    result = algos.policy_loss(logprobs, old, doubles([advantage]), 0.2, dual_clip=3.0)
    close(result.loss, [[loss]])
    assert result.clipped.tolist() == [[clipped]]
    result.loss.sum().backward()
    close(logprobs.grad, [[0.0 if clipped else -advantage * ratio]])


def test_the_first_policy_gradient_is_minus_the_advantage():
    logprobs = tensor([[-1.0, -3.0]], requires_grad=True)
    result = algos.policy_loss(logprobs, logprobs.detach(), tensor([[0.5, -2.0]]), 0.2)
    assert result.ratio.tolist() == [[1.0, 1.0]] and not result.clipped.any()
    result.loss.sum().backward()
    assert logprobs.grad.tolist() == [[-0.5, 2.0]]


@pytest.mark.parametrize(
    ("value", "cliprange", "loss"),
    [
        (2.0, None, 0.5),  # (2 - 3)^2 / 2
        (2.0, 5.0, 0.5),
        (2.0, 0.2, 1.62),  # kept at 1.2: (1.2 - 3)^2 / 2
        (0.0, 0.2, 4.5),  # kept at 0.8, 2.42, but the error is larger: (0 - 3)^2 / 2
        (0.0, None, 4.5),
    ],
)
def test_value_loss_by_hand(value, cliprange, loss):
    close(algos.value_loss(doubles([value]), doubles([1.0]), doubles([3.0]), cliprange), [[loss]])


@pytest.mark.parametrize(("value", "gradient"), [(2.0, 0.0), (1.1, -1.9), (0.0, -3.0)])
def test_a_value_clipped_on_its_way_to_the_return_has_no_gradient(value, gradient):
    values = doubles([value]).requires_grad_()
    algos.value_loss(values, doubles([1.0]), doubles([3.0]), 0.2).sum().backward()
    close(values.grad, [[gradient]])


@pytest.mark.parametrize(
    ("aggregation", "shares"),
    [
        ("token", [3.0, 3.0]),  # (4 + 8) / 4 and 12 / 4
        ("sequence", [2.0, 6.0]),  # (4 + 8) / 3 over the 2 responses, and 12 / 1 over them
        ("constant", [0.75, 0.75]),  # (4 + 8) / (2 x 8) and 12 / (2 x 8)
    ],
)
def test_shares_of_two_micro_batches_in_their_minibatch_s_loss(aggregation, shares):
    """Responses of three tokens, of losses 4, 8 and 0, and of one, of loss 12; the longest may have eight."""
    losses, lengths = [doubles([4.0, 8.0, 0.0])[0], doubles([12.0])[0]], [tensor([3, 3, 3]), tensor([1])]
    for loss, of_each, share in zip(losses, lengths, shares, strict=True):
        close(algos.aggregated(loss, aggregation, 4, of_each, 2, 8), share)
    together = algos.aggregated(torch.cat(losses), aggregation, 4, torch.cat(lengths), 2, 8)
    close(together, sum(shares))


# ---- Diagnostics


def test_explained_variance():
    mask = tensor([[True, True, True], [True, False, False]])
    returns = tensor([[1.0, 2.0, 3.0], [6.0, 99.0, -99.0]])
    garbage = tensor([[0.0, 0.0, 0.0], [0.0, 1e6, math.nan]])
    close(algos.explained_variance(returns + garbage, returns, mask), 1.0)
    close(algos.explained_variance(torch.full_like(returns, 3.0) + garbage, returns, mask), 0.0)
    close(algos.explained_variance(2 * returns + garbage, returns, mask), 0.0)
    # residuals 0, 0, 0, 2 of variance 0.75; returns of variance 14 / 4
    close(algos.explained_variance(tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]]), returns, mask), 1 - 0.75 / 3.5)


@pytest.mark.parametrize("reward", [0.0, 0.1, -1000.1])
def test_returns_that_are_all_the_same_leave_nothing_to_explain(reward):
    """Each is its value and what the reward is beyond that, which a rounding tells apart."""
    values = torch.linspace(-3, 5, 40).view(4, 10)
    assert algos.explained_variance(values, (reward - values) + values, torch.ones(4, 10, dtype=torch.bool)).isnan()


@pytest.mark.parametrize("reward", [1000.1, -1000.1])
def test_returns_that_a_rounding_tells_apart_leave_nothing_to_explain(reward):
    returns = tensor([[reward, reward], [reward, reward]])
    returns[0] = returns[0].nextafter(tensor(0.0))
    for values in (torch.zeros(2, 2), returns.flip(0)):
        assert algos.explained_variance(values, returns, torch.ones(2, 2, dtype=torch.bool)).isnan()


@pytest.mark.parametrize("least, spread", [(0, 1e-4), (100, 1e-2)])
def test_small_differences_of_returns_are_explained_too(least, spread):
    returns, mask = torch.linspace(least, least + spread, 40).view(4, 10), torch.ones(4, 10, dtype=torch.bool)
    close(algos.explained_variance(returns, returns, mask), 1.0)
    close(algos.explained_variance(torch.zeros_like(returns), returns, mask), 0.0)
