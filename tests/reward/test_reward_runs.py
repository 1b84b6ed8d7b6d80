"""Whole runs of stages reward and judge."""

import dataclasses
import json
from pathlib import Path

import pytest
from encoders import PROMPTS, save_encoder
from reward_trainers import SPLITS, build, group, params
from trl_trainers import CountSteps, KillAfterSave, Killed, read_tsv

from rlhf_lib.common.rows import read_jsonl, write_jsonl
from rlhf_lib.models.params import AUTO
from rlhf_lib.reward.params import JudgeParams
from rlhf_lib.scoring.reward_model import STATISTICS_FILE, RewardModel
from rlhf_lib.training import curves
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir
from stages.reward import train

RUNS = {
    "ranking": {"loss_type": "ranking", "train_sampling_strategy": "group_by_length"},
    "bounded": {"loss_type": "mse", "bounded": True},
    "encoder": {"loss_type": "bradley_terry", "max_length": 24},
}

COMPUTE = dataclasses.replace(AUTO, device="cpu", precision="fp32")


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_goes_on_to_the_same_weights_and_curves(tiny, tmp_path, checkpoints, splits, name):
    base = save_encoder(tmp_path / "bert", "bert") if name == "encoder" else tiny.policy
    options = {"bounds": (0.0, 1.0) if name == "bounded" else None, "max_steps": 4, "eval_steps": 2, **RUNS[name]}
    whole = build(base, checkpoints, **options)
    log = training.run(whole, checkpoints)
    checkpoints.remove()

    checkpoints = CheckpointDir("ppo")
    killed = build(base, checkpoints, **options)
    killed.add_callback(KillAfterSave())
    with pytest.raises(Killed):
        training.run(killed, checkpoints)
    resumed = build(base, checkpoints, **options)
    counter = CountSteps()
    resumed.add_callback(counter)
    resumed_log = training.run(resumed, checkpoints)
    assert counter.steps == 2

    for run, rows in (("whole", log), ("resumed", resumed_log)):
        curves.write(run, rows)
    columns = {"train.tsv": {"step", "loss", "accuracy"}, "eval.tsv": {"step", "eval_loss", "eval_accuracy"}}
    for curve in columns:
        assert Path(f"metrics/whole/{curve}").read_bytes() == Path(f"metrics/resumed/{curve}").read_bytes()
        assert columns[curve] <= set(read_tsv(f"metrics/whole/{curve}")[0])
    expected, got = whole.model.state_dict(), resumed.model.state_dict()
    assert expected.keys() == got.keys() and all(expected[key].equal(got[key]) for key in expected)


@pytest.mark.parametrize("kind", ["ranking", "mse", "mae"])
def test_every_kind_lowers_its_loss(tiny, checkpoints, splits, kind):
    trainer = build(tiny.policy, checkpoints, loss_type=kind, max_steps=12, eval_steps=12, save_steps=12)
    before = trainer.evaluate()["eval_loss"]
    assert training.last(training.run(trainer, checkpoints), "eval_loss") < before - 0.05


@pytest.fixture
def project(checkpoints, splits):
    """A folder where stages can run, with the files of both on the same rows."""
    Path("dvc.yaml").write_text("stages: {reward: {cmd: x, deps: []}, judge: {cmd: x, deps: []}}\n")
    write_jsonl("data/splits/test.jsonl", [group(i) for i in range(3)])


def files(folder):
    return {file.relative_to(folder): file.read_bytes() for file in Path(folder).rglob("*") if file.is_file()}


def test_the_judge_is_a_reward_model_of_other_rows(tiny, project):
    """With the same rows and params, it is the same model."""
    of_reward = params(tiny.policy)
    shared = {key: value for key, value in vars(of_reward).items() if key not in ("loss_type", "bounded")}
    train("reward", COMPUTE, of_reward, SPLITS, [0.0, 1.0])
    train("judge", COMPUTE, JudgeParams(**shared), ["pairs.jsonl", "pairs.jsonl"], [0.0, 1.0])
    assert files("models/reward") == files("models/judge") and Path("models/judge/model.safetensors").is_file()
    assert files("data/scores")[Path("reward.jsonl")] == files("data/scores")[Path("judge.jsonl")]
    of_stages = [json.loads(Path(f"metrics/{stage}/summary.json").read_text())[stage] for stage in ("reward", "judge")]
    assert of_stages[0].pop("fitted_mse") > 0
    assert of_stages[0] == of_stages[1]
    assert Path("metrics/reward/eval.tsv").read_bytes() == Path("metrics/judge/eval.tsv").read_bytes()
    assert not list(Path("checkpoints/reward").glob("*/checkpoint-*"))


def test_a_stage_writes_the_scores_of_the_test_rows_and_their_numbers(tiny, project):
    train("reward", COMPUTE, params(tiny.policy, loss_type="mse", bounded=True), SPLITS, [1.0, 10.0])
    scores = read_jsonl("data/scores/reward.jsonl")
    assert [(row["id"], row["response"]) for row in scores] == [(str(i), k) for i in range(3) for k in range(4)]
    assert set(scores[0]) == {"id", "source", "response", "score", "target", "reward", "gold"}
    # normalised or not, the model in the directory knows its bounds
    for normalize in (True, False):
        loaded = RewardModel.load("models/reward", normalize=normalize)
        contents = [r["content"] for i in range(3) for r in group(i)["responses"]]
        got = loaded.scores([PROMPTS[i] for i in range(3) for _ in range(4)], contents)
        assert got == pytest.approx([row["reward"] for row in scores], abs=1e-5)
        assert all(1 < value < 10 for value in got)
    statistics = json.loads(Path(f"models/reward/{STATISTICS_FILE}").read_text())
    assert statistics["bounds"] == [1.0, 10.0]
    summary = json.loads(Path("metrics/reward/summary.json").read_text())["reward"]
    errors = [row["reward"] - row["target"] for row in scores]
    assert summary["mse"] == pytest.approx(sum(e * e for e in errors) / 12, rel=1e-4)
    below = [row["reward"] < 5.5 for row in scores]  # the middle of 1 and 10; all targets are below
    assert summary["sign_accuracy"] == pytest.approx(sum(below) / 12, rel=1e-4)
    assert summary["ece"] is None and summary["train_groups"] == 9 and summary["mean"] == statistics["mean"]
    assert str(summary["validation_accuracy"]) == read_tsv("metrics/reward/eval.tsv")[-1]["eval_accuracy"]


def test_a_run_of_fewer_steps_than_eval_steps_is_validated_at_its_end(tiny, project):
    for kind in ("bradley_terry", "ranking"):
        train("reward", COMPUTE, params(tiny.policy, loss_type=kind, max_steps=2, eval_steps=50), SPLITS, [0.0, 1.0])
        assert [row["step"] for row in read_tsv("metrics/reward/eval.tsv")] == ["2"]
