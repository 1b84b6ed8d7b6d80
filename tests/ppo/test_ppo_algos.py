import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numbers_by_hand import SOME, close, doubles, logits
from torch import tensor

from rlhf_lib.ppo import algos

# ---- KL


def test_kl_estimates_by_hand():
    # policy 0.5, reference 0.25: log r = ln 0.5 = -0.693147
    logprobs, ref = doubles(0.5).log(), doubles(0.25).log()
    close(algos.kl_estimate(logprobs, ref, "k1"), [0.693147])
    close(algos.kl_estimate(logprobs, ref, "k2"), [0.240227])  # 0.693147^2 / 2
    close(algos.kl_estimate(logprobs, ref, "k3"), [0.193147])  # 0.5 - 1 + 0.693147


def test_only_k1_is_negative_where_the_reference_is_likelier():
    # policy 0.25, reference 0.5: log r = 0.693147
    logprobs, ref = doubles(0.25).log(), doubles(0.5).log()
    close(algos.kl_estimate(logprobs, ref, "k1"), [-0.693147])
    close(algos.kl_estimate(logprobs, ref, "k2"), [0.240227])
    close(algos.kl_estimate(logprobs, ref, "k3"), [0.306853])  # 2 - 1 - 0.693147


def test_k1_is_not_clamped():
    close(algos.kl_estimate(doubles(-40.0, -1.0), doubles(-1.0, -40.0), "k1"), [-39.0, 39.0])


@pytest.mark.parametrize("estimator", ["k1", "k3"])
@SOME
@given(p=logits(4), q=logits(4))
def test_k1_and_k3_are_unbiased(estimator, p, q):
    p, q = p.log_softmax(0), q.log_softmax(0)
    kl = torch.distributions.kl_divergence(*(torch.distributions.Categorical(logits=x) for x in (p, q)))
    close((p.exp() * algos.kl_estimate(p, q, estimator)).sum(), kl, 1e-9)


@SOME
@given(p=logits(6), q=logits(6))
def test_k2_and_k3_are_never_negative(p, q):
    assert (algos.kl_estimate(p, q, "k2") >= 0).all()
    assert (algos.kl_estimate(p, q, "k3") >= -1e-12).all()


def test_no_kl_between_equals():
    logprobs = tensor([[-0.3, -2.0]])
    for estimator in ("k1", "k2", "k3"):
        assert algos.kl_estimate(logprobs, logprobs, estimator).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(("kl", "expected"), [(9.0, 0.11), (6.0, 0.1), (3.0, 0.09), (6.6, 0.105), (-50.0, 0.09)])
def test_the_kl_coefficient_moves_by_at_most_a_fifth_of_rows_over_horizon(kl, expected):
    # 0.1 (1 + clip(kl / 6 - 1, -0.2, 0.2) 500 / 1000)
    assert algos.adapt_kl_coef(0.1, kl, target=6.0, horizon=1000, rows=500) == pytest.approx(expected)


# ---- Rewards


def test_the_score_lies_on_the_last_real_token():
    mask = tensor([[True, True, False], [True, True, True], [True, False, False]])
    kl = tensor([[1.0, 2.0, 99.0], [0.5, 0.0, -1.0], [3.0, 99.0, 99.0]])
    rewards = algos.token_rewards(tensor([10.0, 20.0, 30.0]), kl, 0.1, mask)
    # -0.1 kl, and 10 - 0.2, 20 + 0.1, 30 - 0.3
    close(rewards, [[-0.1, 9.8, 0.0], [-0.05, 0.0, 20.1], [29.7, 0.0, 0.0]])


def test_a_response_cut_before_its_end_is_penalised():
    scores, finished = tensor([1.0, 2.0, -3.0]), tensor([True, False, False])
    assert algos.penalise_missing_eos(scores, finished, 0.5).tolist() == [1.0, 1.5, -3.5]
    assert algos.penalise_missing_eos(scores, finished, 0.5, replace=True).tolist() == [1.0, -0.5, -0.5]
    assert algos.penalise_missing_eos(scores, finished, None, replace=True).tolist() == [1.0, 2.0, -3.0]
    assert scores.tolist() == [1.0, 2.0, -3.0]


# ---- Running moments


@SOME
@given(parts=st.lists(st.lists(st.floats(-100, 100), min_size=1, max_size=6), min_size=1, max_size=5))
def test_running_moments_are_those_of_all_the_numbers_together(parts):
    moments, everything = algos.RunningMoments(), doubles(*(x for part in parts for x in part))
    for part in parts:
        moments.update(tensor(part, dtype=torch.float64))
    assert moments.count == len(everything)
    assert moments.mean == pytest.approx(everything.mean().item(), abs=1e-9)
    variance = everything.var(correction=0).item()
    if variance > 1e-9:
        assert moments.std == pytest.approx(variance**0.5, rel=1e-6)


@pytest.mark.parametrize("value", [0.1, 0.7, -2.2, 0.0])
@pytest.mark.parametrize("count", [24, 48, 200])
def test_the_spread_of_numbers_that_are_the_same_is_1(value, count):
    """Though their mean misses 0.1 by a rounding, and 24 such misses were a spread of 1e-17 to divide by."""
    moments = algos.RunningMoments()
    for _ in range(2):
        moments.update(torch.full((count,), value, dtype=torch.float64))
        assert moments.std == 1.0


def test_running_moments_by_hand_and_from_a_saved_state():
    moments = algos.RunningMoments()
    assert moments.std == 1.0
    moments.update(tensor([3.0]))
    assert (moments.count, moments.mean, moments.std) == (1, 3.0, 1.0)
    moments.update(tensor([3.0, 3.0]))
    assert moments.std == 1.0  # as long as all are the same
    resumed = algos.RunningMoments(**vars(moments))
    resumed.update(tensor([7.0]))
    # mean 16 / 4; squares 1 + 1 + 1 + 9
    assert (resumed.count, resumed.mean, resumed.squares, resumed.std) == (4, 4.0, 12.0, 3**0.5)
    assert moments.count == 3


# ---- Advantages


FULL = torch.ones(1, 3, dtype=torch.bool)


def test_gae_by_hand():
    rewards, values = doubles([1.0, 0.0, 2.0]), doubles([0.5, 1.0, -1.0])
    advantages, returns = algos.gae(rewards, values, FULL, gamma=0.9, lam=0.5)
    # delta: 2 + 0 + 1 = 3; 0 - 0.9 - 1 = -1.9; 1 + 0.9 - 0.5 = 1.4
    # A: 3; -1.9 + 0.45 * 3 = -0.55; 1.4 + 0.45 * -0.55 = 1.1525
    close(advantages, [[1.1525, -0.55, 3.0]])
    close(returns, [[1.6525, 0.45, 2.0]])


def test_gae_with_lambda_1_is_the_discounted_return_less_the_value():
    rewards, values = doubles([1.0, 0.0, 2.0]), doubles([0.5, 1.0, -1.0])
    advantages, returns = algos.gae(rewards, values, FULL, gamma=0.5, lam=1.0)
    close(returns, [[1.5, 1.0, 2.0]])  # 1 + 0.5 * 0 + 0.25 * 2; 0 + 0.5 * 2; 2
    close(advantages, [[1.0, 0.0, 3.0]])


def test_gae_with_lambda_0_is_the_one_step_error():
    advantages, _ = algos.gae(doubles([1.0, 0.0, 2.0]), doubles([0.5, 1.0, -1.0]), FULL, gamma=1.0, lam=0.0)
    close(advantages, [[1.5, -2.0, 3.0]])  # 1 + 1 - 0.5; 0 - 1 - 1; 2 - -1


def test_a_response_ends_with_value_0():
    mask = tensor([[True, False, False]])
    advantages, returns = algos.gae(doubles([1.0, 0.0, 0.0]), doubles([0.25, 50.0, 50.0]), mask, 1.0, 1.0)
    assert advantages.tolist() == [[0.75, 0.0, 0.0]] and returns.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize("garbage", [7.0, -1e30, math.nan, math.inf])
def test_gae_is_the_same_alone_and_padded_in_a_batch(garbage):
    torch.manual_seed(0)
    lengths = [2, 5, 1, 4]
    rewards, values = torch.randn(4, 8), torch.randn(4, 8)
    mask = torch.arange(8) < tensor(lengths).unsqueeze(1)
    dirty = [x.masked_fill(~mask, garbage) for x in (rewards, values)]
    batched = algos.gae(*dirty, mask, 0.97, 0.9)
    for row, n in enumerate(lengths):
        alone = algos.gae(*(x[row : row + 1, :n] for x in (rewards, values)), mask[row : row + 1, :n], 0.97, 0.9)
        for together, single in zip(batched, alone, strict=True):
            assert together[row, :n].equal(single[0])
            assert together[row, n:].eq(0).all()


def test_masked_mean_weighs_tokens_alike():
    mask = tensor([[True, True, True], [True, False, False]])
    x = tensor([[1.0, 2.0, 3.0], [10.0, math.nan, math.inf]])
    assert algos.masked_mean(x, mask).item() == 4.0  # 16 / 4


def test_whiten_by_hand():
    mask = tensor([[True, True], [True, False]])
    white = algos.whiten(tensor([[1.0, 2.0], [3.0, 1e9]]), mask)
    close(white, [[-1.224745, 0.0], [1.224745, 0.0]], 1e-5)  # 1 / sqrt(2 / 3)


def test_whitening_without_a_shift_only_scales():
    mask = tensor([[True, True], [True, False]])
    white = algos.whiten(tensor([[1.0, 2.0], [3.0, 1e9]]), mask, shift_mean=False)
    # the deviation is that from the mean: over sqrt(2 / 3)
    close(white, [[1.224745, 2.449490], [3.674235, 0.0]], 1e-5)


@SOME
@given(seed=st.integers(0, 10**6), scale=st.floats(0.1, 100), garbage=st.sampled_from([5.0, 1e8, math.nan]))
def test_whitened_tokens_have_mean_0_and_variance_1_whatever_the_padding(seed, scale, garbage):
    generator = torch.Generator().manual_seed(seed)
    x = 3 + scale * torch.randn(4, 5, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.randint(2, 6, (4, 1), generator=generator)
    white = algos.whiten(x.masked_fill(~mask, garbage), mask)
    close(white[mask].mean(), 0.0, 1e-6)
    close(white[mask].var(correction=0), 1.0, 1e-4)
    assert white[~mask].eq(0).all()
    wider = algos.whiten(*(torch.nn.functional.pad(t, (0, 3)) for t in (x, mask)))
    close(wider[:, :5], white, 1e-9)


def test_eps_is_added_to_the_variance():
    x, mask = tensor([[0.0, 6.0]]), tensor([[True, True]])  # variance 9
    close(algos.whiten(x, mask, eps=7.0), [[-0.75, 0.75]])
    close(algos.whiten(x, mask, shift_mean=False, eps=7.0), [[0.0, 1.5]])


def test_whitening_equal_values_gives_zeros():
    assert algos.whiten(torch.full((2, 2), 3.0), torch.ones(2, 2, dtype=torch.bool)).eq(0).all()


@pytest.mark.parametrize("value", [-1.8, 0.0, 0.1])
def test_whitening_equal_values_without_a_shift_leaves_them(value):
    """Responses of one token, all with the same reward: there is no spread to measure it by."""
    mask = tensor([[True], [True], [True], [False]])
    close(algos.whiten(torch.full((4, 1), value), mask, shift_mean=False), [[value]] * 3 + [[0.0]], 1e-6)
