"""How many lengths a limit holds, and what limit would hold most."""

import pytest

from rlhf_lib.common.fitting import Fit, spread_sample


def test_a_limit_and_the_lengths_above_it():
    fit = Fit.of([10, 30, 31, 100], 30)
    assert fit == Fit(limit=30, rows=4, longer=2, enough=112)  # all four: three are 75 %
    assert (fit.share, fit.holds_most) == (0.5, False)


@pytest.mark.parametrize(("longest", "enough"), [(16, 16), (17, 32), (500, 512)])
def test_what_would_hold_95_percent_is_a_multiple_of_16(longest, enough):
    lengths = [longest] * 95 + [9999] * 5
    assert Fit.of(lengths, 10).enough == enough
    assert Fit.of(lengths, enough).holds_most
    assert not Fit.of([*lengths[1:], 9999], enough).holds_most


def test_of_no_rows_nothing_is_longer():
    assert Fit.of([], 10) == Fit(10, 0, 0, 0)
    assert Fit.of([], 10).share == 0 and Fit.of([], 10).holds_most


@pytest.mark.parametrize(("items", "kept"), [(3, [0, 1, 2]), (4, [0, 1, 2, 3]), (5, [0, 2, 4]), (9, [0, 3, 6])])
def test_a_sample_is_spread_over_all(items, kept):
    assert list(spread_sample(range(items), 4)) == kept
