"""Curves, bars and times as text."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_lib.watch.drawing import BLOCKS, PLAIN, bar, chart, condensed, duration, number, size, spark

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200)


def test_a_spark_goes_from_the_lowest_sign_to_the_highest():
    assert spark([0, 1, 2, 3, 4, 5, 6, 7], 8) == BLOCKS
    assert spark([7, 0, math.nan, 3.5, math.inf], 8) == "█▁▅"
    assert spark([2.0, 2.0], 8) == "▅▅" and spark([], 8) == ""
    assert spark([1, 2], 8, PLAIN) == "_#"


@given(VALUES, st.integers(1, 60))
def test_a_spark_fits_and_shows_where_the_ends_are(values, width):
    line = spark(values, width)
    assert len(line) == min(width, len(values))
    if len(values) <= width and max(values) > min(values):
        assert line[values.index(min(values))] == BLOCKS[0] and line[values.index(max(values))] == BLOCKS[-1]


@given(VALUES, st.integers(1, 60))
def test_more_values_than_columns_are_averaged(values, width):
    shown = condensed(values, width)
    assert len(shown) == min(width, len(values))
    assert min(values) - 1e-3 <= min(shown) and max(shown) <= max(values) + 1e-3


def test_the_means_are_of_runs_of_one_length():
    assert condensed([1, 3, 5, 7, math.nan, 9, 11], 3) == [2.0, 6.0, 10.0]


def test_a_chart_is_filled_up_to_the_line_through_the_values():
    # two lines of 8 levels: 0 is the lowest of them, 15 the highest, 7 fills the lower line
    assert chart([0, 7, 8, 15], 4, 2) == ["  ▁█", "▁███"]
    # from 0 to 15 over four columns: 0, 5, 10, 15
    assert chart([0, 15], 4, 2) == ["  ▃█", "▁▆██"]
    assert chart([], 4, 2) == ["", ""]
    assert chart([1.0], 4, 2) == ["▁▁▁▁", "████"]


def test_a_bar_is_filled_by_its_share():
    assert bar(0.5, 4) == "██░░" and bar(0, 2) == "░░" and bar(1.2, 2) == "██"
    assert bar(0.25, 4, PLAIN) == "#..."


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (-3, "0 s")],
)
def test_times_in_the_two_units_that_tell_most(seconds, told):
    assert duration(seconds) == told


def test_numbers_and_sizes():
    assert number(0.123456) == "0.1235" and number(1e-7) == "1e-07"
    assert size(3 << 20) == "3 MiB" and size(5 << 29) == "2.5 GiB"
