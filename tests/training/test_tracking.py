"""What trackers are told of a training, resumed or not, and that the training is the same with them."""

import json
from pathlib import Path

import pytest
from recorded import Recorder, steps, told
from tiny_models import checkpoints_in
from trained import same, weights
from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK
from trl_trainers import Killed, sft_trainer

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.training import trackers, tracking
from rlhf_lib.training import trainer as training
from rlhf_lib.training.checkpoint import CheckpointDir

RUN = {"max_steps": 6, "eval_steps": 2, "save_steps": 2}


class KilledAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed


@pytest.fixture
def recorder(monkeypatch, checkpoints):
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Recorder)
    monkeypatch.setattr(Recorder, "fails", None)
    monkeypatch.setenv("REPORT_TO", "wandb")
    return checkpoints


def kill(tiny, checkpoints, step):
    trainer = sft_trainer(tiny, checkpoints, **RUN)
    trainer.add_callback(KilledAt(step))
    with pytest.raises(Killed):
        training.run(trainer, checkpoints)


def test_a_tracker_is_told_what_is_logged(tiny, recorder, capsys):
    log = training.run(sft_trainer(tiny, recorder, **RUN), recorder)
    losses = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
    numbers = [(line["step"], line["values"].get("train/loss")) for line in told("values")]
    assert [(step, loss) for step, loss in numbers if loss is not None] == losses
    assert steps("eval/loss") == [2, 4, 6] and steps("train/train_runtime") == [6]
    assert told("start") == [{"start": "ppo/workspace", "begun": False, "config": {}}]
    assert told("failed") == [{"failed": False}]
    assert "ppo/workspace: reported to wandb: told.jsonl" in capsys.readouterr().out


def test_an_evaluation_after_the_training_is_told_too(tiny, recorder):
    training.run(sft_trainer(tiny, recorder, max_steps=2, eval_steps=5), recorder)
    assert steps("eval/loss") == [2]


def test_nothing_is_reported_where_nothing_is_named(tiny, recorder, monkeypatch, tmp_path):
    monkeypatch.delenv("REPORT_TO")
    training.run(sft_trainer(tiny, recorder, max_steps=2), recorder)
    assert told("start") == [] and not (tmp_path / "logs").exists()


def test_only_the_first_of_several_processes_reports(tiny, recorder, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with tracking.reporting(sft_trainer(tiny, recorder), recorder):
        pass
    assert told("start") == []


@pytest.mark.parametrize("step", [1, 3, 4, 6])
def test_a_killed_run_goes_on_in_the_same_run_and_no_step_is_told_twice(tiny, recorder, step):
    kill(tiny, recorder, step)
    assert told("failed") == [{"failed": True}]
    training.run(sft_trainer(tiny, recorder, **RUN), recorder)
    assert [(line["start"], line["begun"]) for line in told("start")] == [
        ("ppo/workspace", False),
        ("ppo/workspace", True),
    ]
    assert steps("train/loss") == [1, 2, 3, 4, 5, 6]
    assert steps("eval/loss") == [2, 4, 6]


def test_a_tracker_that_is_switched_on_later_is_told_what_came_before(tiny, recorder, monkeypatch):
    with monkeypatch.context() as patch:
        patch.delenv("REPORT_TO")
        kill(tiny, recorder, 4)
    training.run(sft_trainer(tiny, recorder, **RUN), recorder)
    assert steps("train/loss") == [1, 2, 3, 4, 5, 6] and steps("eval/loss") == [2, 4, 6]


def test_after_its_end_a_stage_begins_another_run(tiny, recorder, monkeypatch):
    for _ in range(2):
        checkpoints = CheckpointDir("ppo")
        training.run(sft_trainer(tiny, checkpoints, max_steps=1), checkpoints)
        checkpoints.remove()
        recorder._lock.close()
    monkeypatch.setenv("DVC_EXP_NAME", "gentle")
    checkpoints = CheckpointDir("ppo")
    training.run(sft_trainer(tiny, checkpoints, max_steps=1), checkpoints)
    assert [line["start"] for line in told("start")] == ["ppo/workspace", "ppo/workspace-2", "ppo/gentle"]


def test_a_run_lies_in_the_project_not_in_an_experiments_workspace(tiny, recorder, monkeypatch, tmp_path):
    (tmp_path / "temporary").mkdir()
    checkpoints_in(tmp_path / "temporary", monkeypatch)  # where the stage runs
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert tracking.Reports(CheckpointDir("ppo"), [], list).run.root == tmp_path / "logs"
    assert (tmp_path / "logs/ppo/workspace").is_dir()


@pytest.mark.parametrize("fails", [None, 2])
def test_a_training_is_the_same_with_a_tracker_and_without(tiny, recorder, monkeypatch, fails, capsys):
    """Also with one that draws random numbers, and fails; adapters' dropout draws in every step."""
    changes = {**RUN, "lora_r": 4, "lora_dropout": 0.5}
    trainers = []
    for names in ("", "wandb"):
        monkeypatch.setenv("REPORT_TO", names)
        monkeypatch.setattr(Recorder, "fails", fails)
        checkpoints = CheckpointDir("ppo")
        trainers.append(sft_trainer(tiny, checkpoints, **changes))
        training.run(trainers[-1], checkpoints)
    plain, reported = trainers
    assert same(weights(plain.model), weights(reported.model))
    losses = [[entry.get("loss") for entry in trainer.state.log_history] for trainer in trainers]
    assert losses[0] == losses[1]
    line = "ppo: wandb failed, and is left out from here: OSError: the server is gone"
    assert (line in capsys.readouterr().out.splitlines()) == (fails is not None)
    assert steps("train/loss") == ([1, 2, 3, 4, 5, 6] if fails is None else [1])


def test_a_tracker_that_does_not_start_ends_the_stage_in_a_line(tiny, recorder, monkeypatch):
    monkeypatch.setattr(Recorder, "fails", -1)
    trainer = sft_trainer(tiny, recorder)
    with pytest.raises(ParamsError, match="^REPORT_TO: wandb does not start: OSError: the server is gone; mend "):
        training.run(trainer, recorder)
    assert not list(Path("logs/ppo").iterdir())


def test_one_of_transformers_that_does_not_start_ends_the_stage_in_a_line(tiny, recorder, monkeypatch):
    def no_server():
        raise RuntimeError("SERVER_URL is not set")

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "swanlab", no_server)
    monkeypatch.setenv("REPORT_TO", "swanlab")
    with pytest.raises(ParamsError, match="^REPORT_TO: swanlab does not start: RuntimeError: SERVER_URL is not set; m"):
        training.run(sft_trainer(tiny, recorder), recorder)


@pytest.mark.parametrize("file", ["logs", "logs/ppo"])
def test_a_file_in_the_place_of_the_logs_ends_the_stage_in_a_line(tiny, recorder, file):
    Path(file).parent.mkdir(exist_ok=True)
    Path(file).write_text("")
    with pytest.raises(ParamsError, match="^REPORT_TO: .*logs takes no logs: .*; mend that, or take it out$"):
        training.run(sft_trainer(tiny, recorder), recorder)


def test_what_trackers_have_of_a_run_is_kept_beside_the_checkpoints(tiny, recorder):
    kill(tiny, recorder, 3)
    assert json.loads((recorder.path / "trackers.json").read_text()) == {
        "ids": {"wandb": "an-id"},
        "name": "ppo/workspace",
        "told": {"wandb": {"train": 2, "eval": 2}},
    }


def test_the_others_are_transformers_own(tiny, recorder, monkeypatch):
    seen = []

    class Others(TrainerCallback):
        def on_init_end(self, args, state, control, **kwargs):
            seen.append(args.run_name)

        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(state.global_step)

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "swanlab", Others)
    monkeypatch.setenv("REPORT_TO", "swanlab")
    training.run(sft_trainer(tiny, recorder, max_steps=2), recorder)
    assert seen[:3] == ["ppo/workspace", 1, 2]


def test_the_config_is_what_dvc_yaml_declares(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text("stages: {dpo: {cmd: x, params: [dpo, methods.dpo]}}\n")
    (tmp_path / "params.yaml").write_text("dpo: {beta: 0.1, seed: 3, freeze: []}\nmethods: {dpo: true}\nsft: {x: 1}\n")
    assert tracking.config("dpo") == {"dpo.beta": 0.1, "dpo.seed": 3, "dpo.freeze": [], "methods.dpo": True}


def test_ppo_also_tells_its_answers(build, checkpoints, monkeypatch):
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Recorder)
    monkeypatch.setenv("REPORT_TO", "wandb")
    trainer = build(total_rollouts=2, eval_rollouts=1, num_completions_to_log=2)
    training.run(trainer, checkpoints, "ppo")
    tables = told("rows")
    assert len({line["step"] for line in tables}) == len(tables) == 3 and tables[0]["step"] == 0
    rows = [row for line in tables for row in line["rows"]]
    kept = trainer.ppo_state.completions
    assert [(r["rollout"], r["mode"], r["answer"], r["reward"]) for r in rows] == [
        (r["rollout"], r["mode"], r["completion"], r["reward"]) for r in kept
    ]
    assert len(kept) == 3 * 2 * 2 and rows[0]["prompt"] == "What is a cat?"


def test_a_dialogue_is_told_with_who_said_what():
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    row = {"rollout": 1, "mode": "greedy", "prompt": said, "completion": "Yo", "reward": 0.5, "kl": 0.1, "id": "x"}
    assert tracking.table_row(row)["prompt"] == "system: Be brief.\nuser: Hi"


def test_no_text_in_a_table_is_taken_for_markdown():
    text = trackers.markdown([{"a|b": 0.123456789, "c": "<b>*x*|\ny"}])
    assert text == "| a|b | c |\n| --- | --- |\n| 0.123457 | &lt;b&gt;\\*x\\*\\|<br>y |"
