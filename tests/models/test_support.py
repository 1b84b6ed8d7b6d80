"""What tokens were drawn from: kept without the padding of a table."""

import pytest
import torch
from torch import tensor

from rlhf_lib.models.support import as_bits, joined, of_bits, of_padded

TABLE = tensor([[5, 7, 8], [6, -1, -1], [9, 4, -1]])


def test_a_table_keeps_its_ids_alone():
    support = of_padded(TABLE)
    assert support.ids.tolist() == [5, 7, 8, 6, 9, 4] and support.widths.tolist() == [3, 1, 2]
    assert support.ids.dtype == torch.int32
    assert support.padded().equal(TABLE)


def test_what_stands_behind_the_end_is_left_out():
    assert of_padded(TABLE).first(2).padded().tolist() == [[5, 7, 8], [6, -1, -1]]
    assert of_padded(TABLE[1:]).first(1).padded().tolist() == [[6]]


def test_one_text_after_the_other_is_as_wide_as_the_widest():
    both = joined([of_padded(tensor([[1, -1], [2, 3]])), of_padded(TABLE[:1])])
    assert both.padded().tolist() == [[1, -1, -1], [2, 3, -1], [5, 7, 8]]


def test_one_token_of_many_makes_no_other_large():
    rows = torch.full((512, 20_000), -1)
    rows[:, 0], rows[7] = 1, torch.arange(20_000)
    assert of_padded(rows).ids.untyped_storage().nbytes() == 4 * (511 + 20_000)


def test_bits_are_the_ids_of_a_table():
    bits = as_bits(TABLE, 11)
    assert bits.dtype == torch.uint8
    # 5 and 7 in the first byte, 8 in the second; 6; 4, and 9 in the second
    assert bits.tolist() == [[2**5 + 2**7, 1], [2**6, 0], [2**4, 2]]
    support = of_bits(bits)
    assert support.ids.tolist() == [5, 7, 8, 6, 4, 9] and support.widths.tolist() == [3, 1, 2]
    assert support.ids.dtype == torch.int32


@pytest.mark.parametrize("vocabulary", [7, 8, 9, 16])
def test_bits_hold_the_first_and_the_last_token_of_a_vocabulary(vocabulary):
    table = tensor([[vocabulary - 1, 0], [0, -1], [vocabulary - 1, -1]])
    assert of_bits(as_bits(table, vocabulary)).padded().tolist() == [
        [0, vocabulary - 1],
        [0, -1],
        [vocabulary - 1, -1],
    ]


def test_of_a_row_without_bits_there_is_no_id():
    support = of_bits(tensor([[0, 0], [0, 4], [0, 0]], dtype=torch.uint8))
    assert support.ids.tolist() == [10] and support.widths.tolist() == [0, 1, 0]
