"""What the trainers of SFT, reward model and DPO share: logs, curves, kill and resume."""

from pathlib import Path

import pytest
from overfitting import KillAt
from tiny_models import TEXTS
from trained import rows, same, weights
from trl_trainers import (
    CHOSEN,
    REJECTED,
    CountSteps,
    KillAfterSave,
    Killed,
    assistant,
    pair,
    read_tsv,
    reward_trainer,
    sft_trainer,
)

from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.dpo.reference import COLUMNS
from rlhf_lib.training import curves
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir


@pytest.mark.parametrize(("steps", "logged"), [(3, [3]), (4, [4]), (5, [4]), (8, [4, 8])])
def test_a_run_shorter_than_the_logging_steps_is_logged_at_its_end(tiny, checkpoints, steps, logged):
    trainer = sft_trainer(tiny, checkpoints, max_steps=steps, logging_steps=4)
    assert [entry["step"] for entry in training.run(trainer, checkpoints) if "loss" in entry] == logged


def test_a_dataset_holds_the_columns_and_the_length_in_characters(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", [pair(0), pair(1)])
    rows = training.dataset(tmp_path / "rows.jsonl", COLUMNS)
    assert set(rows.column_names) == {*COLUMNS, "length"}
    assert rows["length"] == [len(TEXTS[i]) + len(CHOSEN[i]) + len(REJECTED[i]) for i in (0, 1)]
    assert rows[1]["chosen"] == assistant(CHOSEN[1]) and rows["id"] == ["pair-0", "pair-1"]


def test_last_is_the_newest_value_of_the_key():
    log = [{"loss": 3.0}, {"loss": 0.0, "step": 2}, {"eval_loss": 1.0}]
    assert (training.last(log, "loss"), training.last(log, "eval_loss")) == (0.0, 1.0)
    with pytest.raises(KeyError):
        training.last(log, "kl")


def test_curves_are_the_log_by_step_without_times(tiny, checkpoints):
    trainer = sft_trainer(tiny, checkpoints, max_steps=2, eval_steps=1)
    curves.write("sft", training.run(trainer, checkpoints))
    train, evaluation = read_tsv("metrics/sft/train.tsv"), read_tsv("metrics/sft/eval.tsv")
    assert [row["step"] for row in train] == [row["step"] for row in evaluation] == ["1", "2"]
    assert all(float(row["loss"]) > 0 for row in train) and all(float(row["eval_loss"]) > 0 for row in evaluation)
    for column in (*train[0], *evaluation[0]):
        assert not any(word in column for word in ("runtime", "per_second", "flos", "epoch")), column


@pytest.mark.parametrize("order", ["random", "group_by_length"])
@pytest.mark.parametrize("build", [sft_trainer, reward_trainer])
def test_a_killed_run_goes_on_to_the_same_weights_and_curves(tiny, checkpoints, build, order):
    changes = {"train_sampling_strategy": order, "max_steps": 4}  # in the second pass over nine rows
    whole = build(tiny, checkpoints, **changes)
    log = training.run(whole, checkpoints)
    checkpoints.remove()

    checkpoints = CheckpointDir("ppo")
    killed = build(tiny, checkpoints, **changes)
    killed.add_callback(KillAfterSave())
    with pytest.raises(Killed):
        training.run(killed, checkpoints)
    assert checkpoints.latest().endswith("checkpoint-2")
    resumed = build(tiny, checkpoints, **changes)
    counter = CountSteps()
    resumed.add_callback(counter)
    resumed_log = training.run(resumed, checkpoints)
    assert counter.steps == 2

    for name, entries in (("whole", log), ("resumed", resumed_log)):
        curves.write(name, entries)
    for curve in ("train.tsv", "eval.tsv"):
        assert Path(f"metrics/whole/{curve}").read_bytes() == Path(f"metrics/resumed/{curve}").read_bytes()
    assert len(read_tsv("metrics/resumed/train.tsv")) == 4
    expected, got = whole.model.state_dict(), resumed.model.state_dict()
    assert expected.keys() == got.keys() and all(expected[key].equal(got[key]) for key in expected)


@pytest.mark.parametrize("length", [{"max_steps": 4}, {"max_steps": -1, "num_train_epochs": 1.2}])
def test_a_run_that_was_killed_after_its_last_checkpoint_takes_no_step_more(tiny, checkpoints, length):
    """The fourth is its last, in the middle of the second pass over nine rows."""
    changes = {**length, "lr_scheduler_type": "constant", "eval_steps": 2}
    whole = sft_trainer(tiny, checkpoints, **changes)
    training.run(whole, checkpoints)
    checkpoints.remove()

    checkpoints = CheckpointDir("ppo")
    killed = sft_trainer(tiny, checkpoints, **changes)
    killed.add_callback(KillAt("on_train_end", 4))
    with pytest.raises(Killed):
        training.run(killed, checkpoints)
    resumed = sft_trainer(tiny, checkpoints, **changes)
    assert training.run(resumed, checkpoints)[-1]["step"] == 4
    assert same(weights(whole.model), weights(resumed.model))
    assert rows(whole) == rows(resumed) and rows(whole, "eval_loss") == rows(resumed, "eval_loss")
