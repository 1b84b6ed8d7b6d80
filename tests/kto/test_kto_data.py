"""The batches of KTO: which rows are together, and by which answers the KL is estimated."""

import pytest
from kto_trainers import thumb
from trl_trainers import LONG

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.kto.data import BatchOrder, Thumb, encoded, evenly, in_batches, mismatched


def thumbs(*labels):
    return [Thumb([1] * (3 + row % 4), [10 + row], label) for row, label in enumerate(labels)]


def test_in_each_batch_the_answers_are_rotated_by_one():
    rows = thumbs(*[True] * 7)
    assert [ids[0] - 10 for ids in mismatched(rows, 3)] == [2, 0, 1, 5, 3, 4, 5]  # the last row is alone in its batch
    assert [ids[0] - 10 for ids in mismatched(rows, 4)] == [3, 0, 1, 2, 6, 4, 5]
    assert [ids[0] - 10 for ids in mismatched(rows, 100)] == [6, 0, 1, 2, 3, 4, 5]
    assert [ids[0] - 10 for ids in mismatched(rows, 1)] == [6, 0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("grouped", [False, True])
def test_the_rows_are_put_into_batches_once_and_by_the_seed(grouped):
    rows = thumbs(*[True] * 23)
    first, again, other = (in_batches(rows, 4, grouped, seed) for seed in (0, 0, 1))
    assert first == again != other and first != rows
    assert sorted(first, key=lambda row: row.completion) == rows
    if grouped:
        widths = [{len(row.prompt) for row in first[start : start + 4]} for start in range(0, 20, 4)]
        assert max(map(len, widths)) <= 2


def test_each_pass_has_the_same_batches_in_another_order():
    order = BatchOrder([0] * 23, 4, False, 0)
    passes = []
    for epoch in (0, 1, 0):
        order.set_epoch(epoch)
        passes.append([tuple(list(order)[start : start + 4]) for start in range(0, 23, 4)])
    assert passes[0] == passes[2] != passes[1]
    assert (
        {*passes[0]}
        == {*passes[1]}
        == {(0, 1, 2, 3), (4, 5, 6, 7), *((n, n + 1, n + 2, n + 3) for n in (8, 12, 16))} | {(20, 21, 22)}
    )
    assert passes[0][-1] == passes[1][-1] == (20, 21, 22)


def test_batches_of_the_validation_are_alike():
    labels = [True] * 8 + [False] * 4
    assert [row.label for row in evenly(thumbs(*labels))] == [True, False, True] * 4
    assert sorted(evenly(thumbs(True, True))) == thumbs(True, True) and evenly([]) == []


@pytest.mark.parametrize("size", [2, 8, 32])
def test_the_kl_of_a_validation_is_estimated_by_answers_to_other_prompts(size):
    """Though the answers to a prompt, here four, are side by side in the file."""
    rows = evenly([Thumb([prompt], [4 * prompt + k], k < 2) for prompt in range(100) for k in range(4)])
    own = [row.prompt[0] == other[0] // 4 for row, other in zip(rows, mismatched(rows, size), strict=True)]
    assert sum(own) <= 12  # of 400; by chance 3


def test_rows_are_cut_and_those_of_too_long_prompts_dropped(tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [thumb(0, True), thumb(1, False, prompt=LONG), thumb(3, False)]
    whole = encoded(rows, tokenizer, 1000, "train")
    assert [row.label for row in whole] == [True, False, False]
    most = len(whole[2].prompt) + 1
    cut = encoded(rows, tokenizer, most, "train")
    assert [row.label for row in cut] == [True, False] and cut[1] == whole[2]._replace(
        completion=whole[2].completion[:1]
    )
    assert "kto.max_length" in capsys.readouterr().out
    with pytest.raises(ParamsError, match=r"params\.yaml: kto\.max_length: none of the 1 row of "):
        encoded(rows[1:2], tokenizer, 64, "train")
    with pytest.raises(ParamsError, match=r"thumbs_train\.jsonl: no rows to learn from"):
        encoded([], tokenizer, 64, "train")
    assert encoded([], tokenizer, 64, "validation") == []
