"""Work in chunks."""

from itertools import count

from rlhf_lib.common.chunks import chunks


def test_chunks():
    assert list(chunks(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(chunks([], 3)) == []
    assert next(chunks(count(), 2)) == [0, 1]
