"""Scores as files have them."""

from decimal import Decimal

import pytest

from rlhf_lib.data.load.roles import Fault
from rlhf_lib.data.load.scores import chosen, preferred, read_label, read_rank, read_score


@pytest.mark.parametrize(
    ("value", "score"),
    [
        *[(value, 1.0) for value in (1, True, 1.0, "1", "true", "True", "TRUE", "yes", " Yes ", "100%", "5/5")],
        *[(value, 0.0) for value in (0, False, "0", "false", "No", "0%", "0/5")],
        *[(value, 0.8) for value in ("80%", "80 %", "4/5", "4 / 5", "8/10", "0,8", "0.8", "80,0%", "4,0/5")],
        *[(value, 4.5) for value in (4.5, Decimal("4.50"), "4.5", "4,5", "+4,5", "4,50", " 4,5\n")],
        *[("-2,5", -2.5), ("1e1", 10.0), ("0,125", 0.125), ("12,3456", 12.3456), ("1234,567", 1234.567)],
        # one and a bit, or more than a thousand?
        *[(value, None) for value in ("1,234", "-12,345", "123,456%", "1,234,567", "1.234,5", "1 234")],
        *[(value, None) for value in ("", " ", "good", "5 stars", "4 out of 5", "4/0", "/5", "4/", "%", "1/2/3", ",5")],
        *[
            (value, None)
            for value in (None, [1], {}, "nan", "inf", "-inf", float("nan"), Decimal("sNaN"), 10**400, "9" * 400)
        ],
    ],
)
def test_scores(value, score):
    assert read_score(value) == (None if score is None else pytest.approx(score, abs=1e-12))


@pytest.mark.parametrize(
    ("value", "label"),
    [
        *[(value, 1.0) for value in (True, 1, "true", "1", "yes")],
        *[(value, 0.0) for value in (False, 0, -1, "-1", "no", "False")],
        *[(value, None) for value in (3, 0.5, "50%", "spam", None, "")],
    ],
)
def test_labels(value, label):
    assert read_label(value) == label


def test_ranks():
    assert [read_rank(value) for value in (1, "2", 0, 7.0, True, "first", None)] == [-1, -2, 0, -7, None, None, None]


@pytest.mark.parametrize(
    ("value", "choices", "place"),
    [
        *[(value, [], 0) for value in (0, "0", 0.0, "left", "Left")],
        *[(value, [], 1) for value in (1, "1", 1.0, Decimal("1.00"), "right", " right ")],
        *[(value, [1, 2], 0) for value in (1, "1", 1.0)],
        *[(value, ["A", "B"], 1) for value in ("B", "b")],
        *[(value, [True, False], 1) for value in (False, "False", "false")],
        ("model_b", ["model_a", "model_b"], 1),
    ],
)
def test_choices(value, choices, place):
    assert chosen(value, ["left", "right"], choices) == place


@pytest.mark.parametrize(
    ("value", "choices"),
    [("tie", []), ("tie", ["A", "B"]), ("", []), (None, []), (-1, []), (3, []), (0, [1, 2]), ("right", ["A", "B"])],
)
def test_what_chooses_none(value, choices):
    assert chosen(value, ["left", "right"], choices) == Fault(
        "no_choice",
        f"choice {value!r} is no response; if it should be, set load.sources[...].choices to the values in the order "
        "of the responses",
    )


def test_places_that_are_counted_from_1():
    """The 1 of such a file would be read as the second response."""
    assert chosen(2, ["", ""], []) == Fault(
        "choice_beyond_last",
        "choice 2 of 2 responses; set load.sources[...].choices to the values in the order of the responses ([1, 2])",
    )
    assert chosen(2, ["", "", ""], []) == 2


def test_strengths_of_a_preference():
    assert [preferred(value) for value in (-3, "-1", 1, 3, "2,5")] == [0, 0, 1, 1, 1]
    assert {preferred(value).reason for value in (0, "0", None, "tie")} == {"no_choice"}
    assert preferred(0).text == "preference_strength 0 prefers none of the two"
