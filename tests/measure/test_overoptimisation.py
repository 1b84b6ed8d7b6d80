"""The judge on PPO's answers along its training."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from project import ROOT

from rlhf_lib.common.files import write_curve
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.measure.overoptimisation import COLUMNS, curve
from rlhf_lib.models.params import AUTO
from rlhf_lib.scoring import true_quality
from rlhf_lib.scoring.reward_model import RewardModel

FILE = Path("data/samples/ppo_training.jsonl")
PLAIN = "What is the capital of France?"  # the demo has a rule for what a good answer is


def completion(rollout, text, reward=0.0, kl=0.0, mode="sampled", question=PLAIN, source="demo/facts"):
    prompt = [{"role": "user", "content": question}]
    answered = {"completion": text, "reward": reward, "kl": kl}
    return {"rollout": rollout, "mode": mode, "id": question, "source": source, "prompt": prompt, **answered}


def length(prompts, completions):
    return [float(len(text)) for text in completions]


def test_a_row_an_evaluation_by_hand():
    completions = [
        completion(10, "abc", reward=5.0, kl=3.0),
        completion(0, "ab", reward=1.0, kl=0.0),
        completion(0, "abcd", reward=2.0, kl=0.0),
        completion(0, "greedy", reward=9.0, mode="greedy"),
        completion(10, "a", reward=1.0, kl=1.0),
    ]
    first, second = curve(completions, length)
    assert list(first) == list(COLUMNS)
    # two values x and y: their mean has a standard error of |x - y| / 2
    expected = {"rollout": 0, "reward": 1.5, "reward_se": 0.5, "judge": 3.0, "judge_se": 1.0, "kl": 0.0, "kl_se": 0.0}
    assert expected.items() <= first.items()
    expected = {"rollout": 10, "reward": 3.0, "reward_se": 2.0, "judge": 2.0, "judge_se": 1.0, "kl": 2.0, "kl_se": 1.0}
    assert expected.items() <= second.items()


def test_true_quality_is_there_where_every_source_has_a_rule():
    right, wrong = "The capital of France is Paris.", "Go away."
    prompt = [{"role": "user", "content": PLAIN}]
    golds = true_quality.gold([prompt, prompt], [right, wrong])
    assert golds[0] > golds[1]
    demo = [completion(0, right), completion(0, wrong)]
    (row,) = curve(demo, length)
    assert row["gold"] == pytest.approx(sum(golds) / 2)
    assert row["gold_se"] == pytest.approx((golds[0] - golds[1]) / 2)
    (mixed,) = curve([*demo, completion(0, right, source="other")], length)
    assert mixed["gold"] is None and mixed["gold_se"] is None and mixed["judge"] > 0


def test_one_completion_has_no_standard_error(tmp_path):
    rows = curve([completion(0, "abc", reward=1.0, source="other")], length)
    write_curve(tmp_path / "curve.tsv", rows, COLUMNS)
    assert (tmp_path / "curve.tsv").read_text() == "\t".join(COLUMNS) + "\n0\t1\t\t3\t\t\t\t0\t\n"


def stage():
    """Run the stage where the test runs; the lines of what it wrote, as cells."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    sections = {"evaluate": {"bf16_full_eval": False}, "judge": {"per_device_eval_batch_size": 2}}
    Path("params.yaml").write_text(json.dumps({"policy": "ppo", "compute": vars(AUTO), **sections}))
    done = subprocess.run(
        [sys.executable, "-m", "stages.overoptimisation"], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = Path("metrics/overoptimisation.tsv").read_text().splitlines()
    return [line.split("\t") for line in lines]


def test_the_stage_scores_with_the_judge_what_a_run_left(build, tiny, tmp_path):
    trainer = build(eval_rollouts=1, num_completions_to_log=None)
    trainer.train()
    write_jsonl(FILE, trainer.ppo_state.completions)
    shutil.copytree(tiny.reward, "models/judge")
    header, *lines = stage()
    assert header == list(COLUMNS) and [line[0] for line in lines] == ["0", "1", "2"]
    found = dict(zip(header, lines[2], strict=True))
    sampled = [row for row in trainer.ppo_state.completions if row["mode"] == "sampled" and row["rollout"] == 2]
    scores = RewardModel.load("models/judge")([r["prompt"] for r in sampled], [r["completion"] for r in sampled])
    mean = sum(scores) / 3
    error = math.sqrt(sum((score - mean) ** 2 for score in scores) / 2 / 3)
    assert float(found["judge"]) == pytest.approx(mean, abs=1e-4)
    assert float(found["judge_se"]) == pytest.approx(error, abs=1e-4)
    logged = [entry for entry in trainer.state.log_history if "eval_reward" in entry][-1]
    assert float(found["reward"]) == pytest.approx(logged["eval_reward"], rel=1e-5)
    assert float(found["kl"]) == pytest.approx(logged["eval_kl"], rel=1e-5)
    assert found["gold"] == found["gold_se"] == ""
    assert dict(zip(header, lines[0], strict=True))["kl"] == "0"


def test_without_completions_the_file_has_the_columns_that_are_plotted(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    write_jsonl(FILE, [])
    shutil.copytree(tiny.reward, "models/judge")
    assert stage() == [["rollout", "judge"]]
