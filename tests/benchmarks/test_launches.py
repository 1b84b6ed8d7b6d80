"""What a GPU would be asked to do: the numbers from counts, the work that is counted, and the whole command."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter

import pytest

from benchmarks.launches.cases import SHAPES
from benchmarks.launches.counter import HEAD_WIDTH, Counts, Made
from benchmarks.launches.summary import line, summary, table
from benchmarks.processes import ROOT

# ---- Numbers

ONE = Counts(
    Counter(mm=10, add=30),
    Counter({"item: a b": 2}),
    Counter({"copy: a b": 3}),
    head := Made(4_000_000, "mm", (1,)),
    head,
)


def test_a_layers_and_a_tokens_share_are_differences():
    deeper = Counts(Counter(mm=16, add=32), Counter({"item: a b": 3}))
    longer = Counts(Counter(mm=10, add=158), largest_of_head=Made(7_000_000))
    found = summary(ONE, deeper, longer, tokens=64, at_once=32, layers=12)
    assert (found["calls"], found["calls_per_layer"], found["calls_of_model"]) == (40, 8, 40 + 11 * 8)
    assert (found["calls_per_token"], found["waits"], found["waits_per_layer"]) == (2.0, 2, 1)
    assert (found["largest_mb"], found["largest"], found["uploads"]) == (4.0, "mm [1]", 3)
    # 3 MB for 32 tokens more
    assert found["head_mb_at_16000"] == 4.0 + 3.0 / 32 * (16_000 - 32)
    assert line(5.0, 5.0, 32, 16_000) == 5.0


def test_the_table_has_a_row_a_task():
    numbers, decoded = summary(ONE, ONE, ONE, 64, 64, 12), summary(ONE, ONE, ONE, 4, None, 12)
    measured = {**numbers, "head_mb_at_16000": 1234.5, "head_mb_at_16000_measured": True}
    rows = table({"a": {"tasks": {"sft": {"ours": numbers, "trl": measured}, "sampling": {"ours": decoded}}}})
    assert rows.splitlines()[2:] == [
        "| a | sft | 40, 40 | 0, 0 | 0, 0 | 2, 2 | 3, 3 | 4, 4 | ≤ 4, 1,234 |",
        "| a | sampling | 40 | 0 | 0 | 2 | 3 | 4 | – |",
    ]


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_those_of_the_published_vocabularies(name):
    from benchmarks.plan.case import tokenizer

    shape = SHAPES[name]
    config = shape.config(2, tokenizer())
    assert config.num_hidden_layers == 2 and config.tie_word_embeddings
    assert config.vocab_size == {"gpt2": 50257, "qwen2.5-0.5b": 151936, "gemma-3-270m": 262144}[name]


# ---- The work


def test_a_sampled_token_is_one_forward_pass(tmp_path):
    from benchmarks.launches import tasks

    tasks.write(dataclasses.replace(SHAPES["gpt2"], vocab_size=HEAD_WIDTH + 1), 1, 2, tmp_path)
    for counts in (tasks.decoding(2, tmp_path), tasks.peer_decoding(2, tmp_path)):
        assert counts.calls["embedding"] == 2  # of the token and of its position
        assert counts.largest_of_head.shape == (2, HEAD_WIDTH + 1)


@pytest.mark.parametrize("options", [{}, {"top_k": 50, "top_p": 0.9}, {"top_p": 0.9}], ids=str)
def test_a_gpu_is_waited_for_once_in_16_sampled_tokens(tmp_path, options):
    from benchmarks.launches import tasks
    from rlhf_lib.models import hardware

    tasks.write(dataclasses.replace(SHAPES["gpt2"], vocab_size=HEAD_WIDTH + 1), 1, 2, tmp_path)
    with hardware.as_on_a_gpu():
        waits = tasks.decoding(2, tmp_path, **options).waits
    assert sum(waits.values()) == 1 / 16, waits


def test_a_row_that_ends_early_is_an_error():
    from benchmarks.launches.tasks import check_lengths

    check_lengths([16, 16], 16)
    with pytest.raises(RuntimeError, match="another seed"):
        check_lengths([16, 3], 16)


# ---- The command


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_the_command_counts_every_task(name, tmp_path):
    output = tmp_path / "launches.json"
    command = [sys.executable, "-m", "benchmarks.launches", "--quick", "--cases", name, "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cases = json.loads(output.read_text())["cases"]
    assert list(cases) == [f"{name}, cpu", f"{name}, gpu"]
    for case in cases.values():
        check_tasks(case["tasks"])
    assert len(done.stdout.splitlines()) == 2 + sum(len(case["tasks"]) for case in cases.values())


def check_tasks(tasks):
    assert {task for task, sides in tasks.items() if "trl" in sides} == {
        *("sft", "reward", "dpo", "sampling", "sampling_top_p", "sampling_top_p_alone")
    }
    assert {task for task, sides in tasks.items() if "trl" not in sides} == {"ppo_update", "ppo_scoring", "evaluation"}
    for task, sides in tasks.items():
        for numbers in sides.values():
            assert numbers["calls"] > 0 and numbers["calls_per_layer"] > 0 and numbers["peak_mb"] > 0
            assert (numbers["head_mb"] > 0) is (task != "reward")
