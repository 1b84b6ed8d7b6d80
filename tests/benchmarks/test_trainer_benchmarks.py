"""The benchmark of SFT, reward model and DPO: its arithmetic, its cases, its rows, and both sides on a toy model."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks import command
from benchmarks.processes import ROOT
from benchmarks.trainers import __main__ as trainers
from benchmarks.trainers import ours as our_trainer
from benchmarks.trainers import peer as peer_trainer
from benchmarks.trainers.cases import CASES, TASKS
from benchmarks.trainers.worker import TrainerTask


def turn(seconds, losses, peak=100.0):
    measured = {"cpu_seconds": seconds, "wall_seconds": seconds, "peak_mb": peak, "peak_gflops": 100.0}
    return {**measured, "losses": losses}


# ---- Statistics


def test_the_warm_up_counts_for_the_losses_and_not_for_the_time():
    peer = ({}, [turn(50.0, [5.0]), turn(6.0, [4.0])])
    ours = ({}, [turn(90.0, [5.5], 400.0), turn(2.0, [4.25], 50.0)])
    case = trainers.summary(CASES["tiny"], 120, 120.0, peer, ours)
    assert (case["ratio"], case["pairs"], case["memory_ratio"]) == (3.0, 1, 0.5)
    assert (case["gflop"], case["peak_share"], case["ratio_bound"]) == (120.0, 0.6, 5.0)
    assert (case["loss_difference_largest"], case["loss_difference_mean"], case["loss_range"]) == (0.5, 0.375, 1.0)
    assert (case["peer"]["tokens_per_second"], case["ours"]["tokens_per_second"]) == (20.0, 60.0)
    assert case["ours"]["losses"] == [5.5, 4.25]
    assert "ratio_with_reference" not in case


def test_the_reference_is_charged_to_each_block_of_ours():
    peer = ({}, [turn(50.0, [5.0]), turn(6.0, [4.0])])
    ours = ({"reference_seconds": 1.0}, [turn(90.0, [5.0]), turn(2.0, [4.0])])
    case = trainers.summary(CASES["tiny"], 120, 120.0, peer, ours)
    assert (case["ratio"], case["ratio_with_reference"]) == (3.0, 2.0)


def test_curves_of_other_rows_are_not_compared():
    side = ({}, [turn(2.0, [5.0]), turn(2.0, [4.0])])
    assert "loss_difference_mean" not in trainers.summary(CASES["tiny_grouped"], 120, 120.0, side, side)


def test_curves_of_different_length_are_an_error():
    with pytest.raises(ValueError):
        trainers.loss_differences([1.0, 2.0], [1.0])


def test_cases_in_bf16_are_left_out_where_it_is_emulated():
    assert command.suitable_cases(CASES, bf16=True) == list(CASES)
    assert command.suitable_cases(CASES, bf16=False) == ["tiny_fp32", "gpt2_fp32"]


# ---- Cases and rows


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("task", TASKS)
def test_both_sides_have_the_same_settings(task, name, tmp_path):
    asked = TrainerTask(task, CASES[name], 3, tmp_path)
    ours, peer = our_trainer.params(asked).config(), peer_trainer.settings(asked)
    shared = ours.keys() & peer.keys()
    assert {"learning_rate", "per_device_train_batch_size", "num_train_epochs", "seed"} <= shared
    assert {key: ours[key] for key in shared} == {key: peer[key] for key in shared}
    # TRL's own learning rate apart, nothing of its defaults is set
    assert set(CASES[name].peer) <= {"bf16", "gradient_checkpointing"}


@pytest.mark.slow
def test_rows_are_as_long_as_the_case_says(tmp_path):
    from benchmarks.ppo import workload
    from benchmarks.trainers import preferences
    from rlhf_lib.common.rows import read_jsonl
    from rlhf_lib.models.chat import dialogue_ids, prompt_ids
    from rlhf_lib.models.loading import load_tokenizer

    case = CASES["tiny"].quick()
    preferences.write(case, "sft", tmp_path, tmp_path)
    rows, tokenizer = read_jsonl(tmp_path / preferences.ROWS), load_tokenizer(tmp_path / preferences.MODEL)
    assert rows == preferences.pairs(tokenizer, case)
    assert len(rows) == case.rows
    dialogues = [len(dialogue_ids(tokenizer, row["prompt"], row["chosen"][0]["content"])) for row in rows]
    assert all(case.prompt_lengths[0] <= len(prompt_ids(tokenizer, row["prompt"])) for row in rows)
    assert max(dialogues) <= case.max_length
    assert preferences.block_tokens(tmp_path, "sft") == sum(dialogues) < preferences.block_tokens(tmp_path, "dpo")
    assert workload.fresh_tokenizer(512, tmp_path).vocab_size <= 512


# ---- Both sides


@pytest.mark.slow
@pytest.mark.parametrize("task", ["sft", "reward", "dpo"])
def test_both_sides_learn_alike(task, tmp_path):
    command = [sys.executable, "-m", "benchmarks.trainers", "--quick", "--pairs", "1", "--output", str(tmp_path)]
    done = subprocess.run([*command, "--tasks", task, "--cases", "tiny_fp32"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    case = json.loads((tmp_path / f"{task}.json").read_text())["cases"]["tiny_fp32"]
    assert len(case["ours"]["losses"]) == 2 * CASES["tiny_fp32"].quick().steps
    assert case["loss_difference_largest"] < 1e-4 < case["loss_range"]
    assert ("reference_seconds" in case["ours"]) is (task == "dpo")
    for side in ("peer", "ours"):
        assert case[side]["settings"]["gradient_checkpointing"] is case[side]["settings"]["bf16"] is False
        assert case[side]["peak_mb"] > 0
