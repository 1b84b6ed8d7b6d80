"""Intervals over prompts and seeds: hand-computed numbers, the table of t, and studies of which the truth is known."""

import math

import numpy as np
import pytest

from rlhf_lib.study import intervals
from rlhf_lib.study.intervals import Variances


@pytest.mark.parametrize(
    ("p", "df", "value"),
    # of the table that every textbook has
    [
        (0.05, 1, 12.7062),
        (0.05, 2, 4.3027),
        (0.05, 4, 2.7764),
        (0.01, 10, 3.1693),
        (0.05, 349, 1.9668),
        (0.5, 3, 0.7649),
    ],
)
def test_critical_values_are_those_of_the_table(p, df, value):
    assert intervals.critical(p, df) == pytest.approx(value, abs=1e-4)


# prompts by seeds; grand mean 4, means of the prompts 2 and 6, of the seeds 3 and 5
ONE = np.array([[1.0, 3.0], [5.0, 7.0]])
# the same means of prompts and seeds, and a rest of +-1: its mean square is 4 * 1 / (1 * 1) = 4
OTHER = np.array([[2.0, 2.0], [4.0, 8.0]])


def test_the_mean_of_one_method_by_hand():
    found = intervals.mean(ONE)
    assert found.value == 4
    # the variance of 2 and 6, over two prompts; of 3 and 5, over two seeds, of which nothing is left to take out
    assert found.terms == ((pytest.approx(8 / 2), 1), (pytest.approx(2 / 2), 1))
    assert found.half == pytest.approx(12.7062 * math.sqrt(5), rel=1e-5)


def test_what_is_left_is_taken_out_of_the_seeds():
    assert intervals.rest(OTHER) == pytest.approx(4)
    assert intervals.mean(OTHER).terms == ((pytest.approx(4), 1), (pytest.approx(2 / 2 - 4 / 4), 1))


def test_prompts_pair_and_seeds_do_not():
    found = intervals.difference(ONE + 1, ONE)
    assert found.value == pytest.approx(1)
    # each prompt differs by 1, so that only the seeds of either method are left, with a degree of freedom each
    assert found.terms == ((pytest.approx(2 / 2 + 2 / 2), 2),)


def test_a_difference_by_hand():
    found = intervals.difference(OTHER, np.zeros((2, 2)))
    # prompts 8 / 2 and seeds 2 / 2, less the rest 4 / 4; degrees of freedom 4^2 / (4^2 / 1 + 1^2 / 1)
    assert found.terms == ((pytest.approx(4 + 1 - 1), 1),)


def test_the_p_value_is_where_the_interval_touches_zero():
    found = intervals.difference(ONE + 1, ONE)
    assert found.half_at(found.p) == pytest.approx(abs(found.value), rel=1e-4)
    # Student's t of two degrees of freedom, whose tails are 1 - t / sqrt(2 + t^2)
    t = 1 / math.sqrt(2)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-6)
    assert intervals.difference(ONE, ONE[:, ::-1]).p == 1


def test_no_spread_is_certain():
    same = np.ones((3, 2))
    assert intervals.difference(same, same).p == 1
    assert intervals.difference(same + 1, same).p == 0


def test_with_more_seeds_both_parts_shrink():
    parts = Variances(prompts=3.0, seeds=(0.4, 0.6), rest=(1.0, 1.0), trained=2)
    (found,) = parts.estimate(1.0, 100, 4).terms
    # of the prompts' 3, 2 / 2 were of the rest, of which half is left with twice the seeds: 2.5
    assert found[0] == pytest.approx(2.5 / 100 + 1 / 4 - 2 / 400)


def test_more_seeds_until_the_interval_is_narrower_than_the_difference():
    spread = np.array([-1.0, 1.0]) / 2  # the means of the seeds vary by 0.5 in either method
    one, other = np.ones((100, 1)) + spread, np.zeros((100, 1)) + spread
    # t(2 (S - 1)) / sqrt(S) is 1.22 at 4 seeds, 1.03 at 5, 0.91 at 6
    assert intervals.more_seeds(one, other, 0.05) == 4
    assert intervals.more_seeds(one + 10, other, 0.05) == 0
    # at a third of the p-value t(2 (S - 1)) / sqrt(S) is 1.05 at 7 seeds, and 0.96 at 8
    assert intervals.more_seeds(one, other, 0.05 / 3) == 6


def test_where_prompts_alone_are_too_few_no_seeds_help():
    prompts = np.linspace(-10, 10, 8)[:, None]
    assert intervals.more_seeds(np.tile(prompts + 0.1, 2), np.zeros((8, 2)), 0.05) is None


@pytest.mark.parametrize("of_seeds", [0.0, 0.01, 0.05])
def test_a_method_against_itself(of_seeds):
    """Two names for one method: 200 studies of 350 prompts and three seeds, as varied as the demo's."""
    generator = np.random.default_rng(2026)

    def trained(prompts):
        seeds, rest = generator.normal(0, of_seeds, (1, 3)), generator.normal(0, 0.2, (350, 3))
        return 0.6 + prompts + seeds + rest

    called = covered = 0
    for _ in range(200):
        prompts = generator.normal(0, 0.3, (350, 1))
        one, other = trained(prompts), trained(prompts)
        called += intervals.difference(one, other).p <= 0.05
        mean = intervals.mean(one)
        covered += abs(mean.value - 0.6) <= mean.half
    assert called <= 10
    assert 186 <= covered <= 194
