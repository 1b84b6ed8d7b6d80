"""Answers with thumbs, from the file to the splits."""

import json
from dataclasses import replace

import pytest
from record_files import jsonl, write
from small_rows import PARAMS

from rlhf_lib.data.load.load import load
from rlhf_lib.data.load.params import LoadParams, SourceParams
from rlhf_lib.data.prepare.prepare import prepare


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("sft_responses", ["all", "best"])
def test_a_thumb_down_is_no_demonstration(tmp_path, sft_responses):
    """Of every prompt a good and a bad answer, or one alone: the good ones are learnt, and both are pairs."""
    records = [
        {"prompt": f"Question {number}?", "completion": f"{kind} {number}", "label": kind == "good"}
        for number in range(150)
        for kind in (("good", "bad"), ("good",), ("bad",))[number % 3]
    ]
    path = write(tmp_path, "thumbs.jsonl", jsonl(records))
    load(tmp_path / "raw", LoadParams([SourceParams("file", path=path)], 5, 1, seed=0))
    splits = tmp_path / "splits"
    params = replace(PARAMS, sft_responses=sft_responses)
    prepare(tmp_path / "raw", splits, tmp_path / "rejected.jsonl", params)
    learnt = [record["completion"][0]["content"] for record in lines(splits / "sft_train.jsonl")]
    assert learnt and all(text.startswith("good") for text in learnt)
    pairs = lines(splits / "preference_train.jsonl")
    assert pairs
    for pair in pairs:
        good, bad = pair["chosen"][0]["content"], pair["rejected"][0]["content"]
        assert (good.split()[0], bad.split()[0]) == ("good", "bad")
        assert good.split()[1] == bad.split()[1]
