"""The curves that grow while a stage trains, and what is told of how far it is."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import TrainerCallback
from trl_trainers import CHOSEN, KillAfterSave, Killed, read_tsv, sft_trainer

from rlhf_lib.common.policies import TRAINERS
from rlhf_lib.training import curves, status
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir
from rlhf_lib.training.guard import Diverged

TRAIN, EVAL = Path("metrics/ppo/train.tsv"), Path("metrics/ppo/eval.tsv")
STATUS = Path(".dvc/tmp/stages/ppo.json")
RUN = {"max_steps": 6, "logging_steps": 1, "eval_steps": 2, "save_steps": 2}


@pytest.fixture
def at_once(monkeypatch):
    """What is new is written at once."""
    monkeypatch.setattr(status.Pace, "is_due", lambda pace: True)


@pytest.fixture
def project(checkpoints):
    """A project whose stage has its lock."""
    STATUS.parent.mkdir(parents=True)
    return checkpoints


class Look(TrainerCallback):
    """Reads the files after every step, as another process would."""

    def __init__(self):
        self.curves, self.told = [], []

    def on_step_begin(self, args, state, control, **kwargs):
        if TRAIN.exists():
            self.curves.append([path.read_text() for path in (TRAIN, EVAL)])
        if STATUS.exists():
            self.told.append(json.loads(STATUS.read_text()))


def looked_at(tiny, checkpoints, **changes):
    trainer, look = sft_trainer(tiny, checkpoints, **{**RUN, **changes}), Look()
    trainer.add_callback(look)
    training.run(trainer, checkpoints)
    return look


def test_the_curves_grow_by_whole_lines_to_what_they_are_at_the_end(tiny, checkpoints, at_once):
    look = looked_at(tiny, checkpoints)
    train, evaluation = TRAIN.read_text(), EVAL.read_text()
    # before step 2 to 6 there are the rows of all steps before
    assert [text.count("\n") - 1 for text, _ in look.curves] == [1, 2, 3, 4, 5]
    assert all(train.startswith(text) and text.endswith("\n") for text, _ in look.curves)
    # an evaluation after steps 2, 4 and 6; before the first the header that plots look for
    assert [text.count("\n") - 1 for _, text in look.curves] == [0, 1, 1, 2, 2]
    assert look.curves[0][1] == "step\teval_reward\teval_kl\n"
    assert all(evaluation.startswith(text) for _, text in look.curves[1:])
    assert [row["step"] for row in read_tsv(TRAIN)] == [*"123456"] and len(read_tsv(EVAL)) == 3
    assert [path.name for path in TRAIN.parent.iterdir() if path.suffix == ".tmp"] == []


def test_a_run_writes_under_the_name_of_its_stage_and_not_of_its_section(tiny, checkpoints):
    Path("dvc.yaml").write_text("stages: {rft_random: {cmd: x, deps: []}}\n")
    checkpoints = CheckpointDir("rft_random")
    training.run(sft_trainer(tiny, checkpoints), checkpoints, "rft")
    assert len(read_tsv("metrics/rft_random/train.tsv")) == 5 and not Path("metrics/rft").exists()


def test_a_killed_run_shows_its_rows_and_goes_on_to_the_same_bytes(tiny, checkpoints, at_once):
    looked_at(tiny, checkpoints)
    whole = [path.read_bytes() for path in (TRAIN, EVAL)]
    checkpoints.remove()
    TRAIN.unlink()
    EVAL.unlink()
    checkpoints = CheckpointDir("ppo")
    killed = sft_trainer(tiny, checkpoints, **RUN)
    killed.add_callback(KillAfterSave())
    with pytest.raises(Killed):
        training.run(killed, checkpoints)
    left = TRAIN.read_bytes()
    assert left.count(b"\n") == 3 and whole[0].startswith(left)
    TRAIN.unlink()  # as DVC does before a stage
    look = looked_at(tiny, checkpoints)
    assert look.curves[0][0].encode() == left  # those rows are there before the first new step
    assert [path.read_bytes() for path in (TRAIN, EVAL)] == whole


def test_a_training_that_diverges_leaves_the_rows_that_show_it(tiny, checkpoints):
    changes = {"learning_rate": 1000.0, "lr_scheduler_type": "constant", "max_grad_norm": 0.0, "eval_steps": 6}
    with pytest.raises(Diverged):
        training.run(sft_trainer(tiny, checkpoints, **{**RUN, **changes}), checkpoints)
    losses = [float(row["loss"]) for row in read_tsv(TRAIN)]
    assert losses[0] < 20 and not losses[-1] < 1000  # NaN too


def test_a_training_that_fails_before_its_first_row_leaves_no_curve(tiny, checkpoints):
    trainer = sft_trainer(tiny, checkpoints, **RUN)
    trainer.compute_loss = None
    with pytest.raises(TypeError):
        training.run(trainer, checkpoints)
    assert not Path("metrics").exists()


def test_a_disk_that_takes_no_curve_ends_the_training_only_at_its_end(tiny, checkpoints, at_once, monkeypatch):
    tried = []

    def full(*args):
        tried.append(args)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(curves, "write_curve", full)
    trainer = sft_trainer(tiny, checkpoints, **RUN)
    with pytest.raises(OSError, match="No space left"):
        training.run(trainer, checkpoints)
    assert trainer.state.global_step == 6 and len(tried) > 6


def test_only_the_first_of_several_processes_writes(tiny, checkpoints, at_once):
    trainer = sft_trainer(tiny, checkpoints, **RUN)
    trainer.is_world_process_zero = lambda: False
    training.run(trainer, checkpoints)
    assert not Path("metrics").exists()


def test_a_training_of_no_stage_writes_nothing(tiny, checkpoints, at_once):
    checkpoints.stage = ""
    training.run(sft_trainer(tiny, checkpoints, **RUN), checkpoints)
    assert not Path("metrics").exists()


def test_an_evaluation_before_the_first_row_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    curves._write_what_there_is("ppo", [{"step": 0, "eval_reward": 1.0}])
    assert [*tmp_path.iterdir()] == []


def test_every_stage_that_trains_has_the_columns_that_its_plots_look_for():
    assert set(curves._EVALUATED) == set(TRAINERS)


@pytest.mark.parametrize(("took", "pause"), [(0.001, 1.0), (0.02, 1.0), (0.5, 25.0), (6.0, 300.0)])
def test_writing_takes_at_most_a_fiftieth_of_the_time(monkeypatch, took, pause):
    now = [100.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    pace = status.Pace()
    assert pace.is_due()
    with pace.writing():
        now[0] += took
    now[0] += pause - 1e-6
    assert not pace.is_due()
    now[0] += 2e-6
    assert pace.is_due()


def test_how_far_it_is_stands_beside_the_lock(tiny, project, at_once):
    look = looked_at(tiny, project)
    assert [told["done"] for told in look.told] == [0, 1, 2, 3, 4, 5]
    last = json.loads(STATUS.read_text())
    assert {told["phase"] for told in look.told} == {"training"} and last["phase"] == "trained"
    assert {told["total"] for told in look.told} == {6} and {told["unit"] for told in look.told} == {"step"}
    assert {told["pid"] for told in look.told} == {os.getpid()}
    assert last["epoch"] == pytest.approx(6 * 3 / len(CHOSEN)) and last["epochs"] is None  # max_steps ends it
    assert last["seconds_each"] > 0 and last["tokens_per_second"] > 0


def test_a_resumed_run_measures_its_own_steps(tiny, project, at_once, monkeypatch):
    killed = sft_trainer(tiny, project, **RUN)
    killed.add_callback(KillAfterSave())
    with pytest.raises(Killed):
        training.run(killed, project)
    look = looked_at(tiny, project)
    assert [told["done"] for told in look.told] == [2, 3, 4, 5]
    assert ["seconds_each" in told for told in look.told] == [False, False, True, True]


def test_nothing_is_told_where_there_is_no_project(tiny, checkpoints, at_once):
    looked_at(tiny, checkpoints)
    assert not Path(".dvc").exists()


def test_tokens_a_second_are_those_logged_or_those_of_the_counts(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(status.time, "time", lambda: now[0])
    told = status.Status(SimpleNamespace(), "sft")
    told.count({"loss": 1.0, "num_tokens": 500.0})
    assert told.tokens_per_second is None
    now[0] += 4.0
    told.count({"loss": 1.0, "num_tokens": 900.0})
    assert told.tokens_per_second == 100.0
    told.count({"rollout_tokens_per_second": 7.0})
    assert told.tokens_per_second == 7.0


def test_ppo_counts_rollouts():
    of_ppo = SimpleNamespace(
        ppo_state=SimpleNamespace(rollouts_done=3), params=SimpleNamespace(total_rollouts=40), state=None
    )
    assert status.Status(of_ppo, "ppo").done(SimpleNamespace(global_step=12, max_steps=160)) == ("rollout", 3, 40)
