"""The reward functions that ship as examples."""

import pytest

from rewards import examples
from rlhf_lib.data.load.demo import build_rows
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.load.readers import READERS
from rlhf_lib.demo.gold import gold


def example(function, *texts, **columns):
    return function(completions=[[{"role": "assistant", "content": text}] for text in texts], **columns)


def test_brevity_counts_the_words_over_its_limit():
    assert example(examples.brevity, "", "a " * 40, "a\n" * 41, "a b " * 40, id=[1, 2, 3, 4]) == [0, 0, -1, -40]


def test_no_repetition_counts_three_words_that_come_again():
    texts = ["", "the cat", "the cat sat down", "the cat sat The cat SAT", "a a a a a"]
    # six words have four trigrams, the last of them the first again; five equal words have three equal ones
    assert example(examples.no_repetition, *texts) == pytest.approx([0, 0, 0, -1 / 4, -2 / 3])


def test_demo_gold_is_the_true_quality_of_demo_rows_alone():
    source = SourceParams(reader="demo")
    row = next(iter(READERS["demo"].parse(build_rows(instructions=4, seed=0)[0], source)))
    texts = [response["content"] for response in row["responses"]]
    prompts = [row["prompt"]] * len(texts)
    source = [row["source"]] * (len(texts) - 1) + ["ultrafeedback/x"]
    expected = [gold(row["prompt"][-1]["content"], text) for text in texts[:-1]]
    assert example(examples.demo_gold, *texts, prompts=prompts, source=source) == [*expected, None]
    assert any(expected)
