"""What rows begin with in common is found, and read once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_lib.models import beginnings
from rlhf_lib.models.beginnings import NONE, WORTH, Beginning, common_beginnings

ROWS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8)


def test_by_hand():
    rows = [[5, 6, 7, 8], [1, 2], [5, 6, 9], [5, 6, 9, 4], [1, 2]]
    own = [len(row) for row in rows]
    found = common_beginnings(rows, own)
    assert found == [NONE, NONE, Beginning(0, 2), Beginning(2, 3), Beginning(1, 2)]


def test_a_row_has_its_own_tokens_from_where_it_must():
    rows = [[5, 6, 7, 8]] * 3
    assert [tokens for _, tokens in common_beginnings(rows, [0, 2, 4])] == [0, 2, 4]
    assert common_beginnings(rows, [4, 0, 0]) == [NONE] * 3


def test_a_beginning_that_saves_next_to_nothing_is_left_alone():
    token = iter(range(1000))
    rows = [[999, *(next(token) for _ in range(29))] for _ in range(10)]
    assert WORTH * 300 > 9
    assert common_beginnings(rows, [30] * 10) == [NONE] * 10
    assert [tokens for _, tokens in common_beginnings([row[:9] for row in rows], [9] * 10)] == [0] + [1] * 9


def in_common(one, other):
    return max(n for n in range(min(len(one), len(other)) + 1) if one[:n] == other[:n])


@given(rows=ROWS, data=st.data())
@settings(max_examples=200, deadline=None)
def test_each_row_has_the_longest_beginning_that_an_earlier_one_has(
    rows,
    data,
):
    own = [data.draw(st.integers(0, len(row))) for row in rows]
    worth, beginnings.WORTH = beginnings.WORTH, 0
    try:
        found = common_beginnings(rows, own)
    finally:
        beginnings.WORTH = worth
    for index, (row, end, (earlier, tokens)) in enumerate(zip(rows, own, found, strict=True)):
        assert tokens == max((in_common(row[:end], other) for other in rows[:index]), default=0)
        assert row[:tokens] == rows[earlier][:tokens]
        assert earlier < index or index == 0
