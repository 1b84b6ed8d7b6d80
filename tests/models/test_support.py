"""What tokens were drawn from: kept without the padding of a table."""

import torch
from torch import tensor

from rlhf_lib.models.support import joined, of_padded

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
