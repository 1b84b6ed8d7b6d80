"""Each tracker that is installed: a killed run and its resumption are one run in it, each step once, and answers."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf_lib.training import trackers

ROWS = [
    {"rollout": 1, "mode": "greedy", "reward": 0.5, "kl": 0.1, "prompt": "a | b", "answer": "<c>"},
    {"rollout": 1, "mode": "sampled", "reward": -1.5, "kl": 0.0, "prompt": "d", "answer": "e\nf"},
]
CONFIG = {"ppo.kl_coef": 0.2, "ppo.seed": 0, "ppo.freeze": [], "ppo.reward_weights": None}


@pytest.fixture
def reported(tmp_path, monkeypatch) -> Callable[[str], trackers.Run]:
    """A function that reports a run to a tracker twice, as a stage that is killed after step 2, then resumed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    for name in ("TENSORBOARD_LOGGING_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))

    def report(name: str) -> trackers.Run:
        ids: dict[str, str] = {}
        for steps in ((1, 2), (3, 4)):
            run = trackers.Run("ppo", "gentle", "ppo/gentle", tmp_path / "my project/logs", CONFIG, ids)
            tracker = trackers.TRACKERS[name](run)
            assert tracker.where
            for step in steps:
                tracker.log({"train/loss": step / 2, "train/rewards/a(b)": 1.0}, step)
                tracker.log({"eval/loss": step / 4}, step)
            tracker.table(ROWS, steps[-1])
            tracker.close(failed=steps[0] == 1)
        return run

    return report


def test_tensorboard(reported, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reported("tensorboard")
    folder = tmp_path / "my project/logs/ppo/gentle"
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2
    seen = EventAccumulator(str(folder))
    seen.Reload()
    assert [(event.step, event.value) for event in seen.Scalars("train/loss")] == [(n, n / 2) for n in (1, 2, 3, 4)]
    tables = seen.Tensors("answers/text_summary")
    assert [event.step for event in tables] == [2, 4]
    assert b"| greedy | 0.5 | 0.1 | a \\| b | &lt;c&gt; |" in tables[0].tensor_proto.string_val[0]
    (params,) = seen.Tensors("params/text_summary")  # not again by the second
    assert b"ppo.kl\\_coef | 0.2" in params.tensor_proto.string_val[0]


def test_wandb(reported, tmp_path):
    pytest.importorskip("wandb")
    state = random.getstate()
    run = reported("wandb")
    assert random.getstate() == state
    folders = sorted((tmp_path / "my project/logs/wandb").glob("offline-run-*"))
    assert len(folders) == 2 and all(folder.name.endswith(run.ids["wandb"]) for folder in folders)
    (table,) = folders[0].rglob("answers_*.table.json")
    assert json.loads(table.read_text())["data"][0] == list(ROWS[0].values())
    assert run.project == "my-project"


def test_trackio(reported, tmp_path):
    pytest.importorskip("trackio")
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    run = reported("trackio")
    if Path(utils.TRACKIO_DIR) != tmp_path / "trackio":
        pytest.skip("trackio was imported before, with another folder")
    assert SQLiteStorage.get_runs(run.project) == ["ppo/gentle"]
    logs = SQLiteStorage.get_logs(run.project, "ppo/gentle")
    assert [(log["step"], log["train/loss"]) for log in logs if "train/loss" in log] == [
        (n, n / 2) for n in (1, 2, 3, 4)
    ]
    tables = [log["answers"]["_value"] for log in logs if "answers" in log]
    assert [[row["answer"] for row in table] for table in tables] == [["<c>", "e\nf"]] * 2
    assert SQLiteStorage.get_run_config(run.project, "ppo/gentle")["ppo.kl_coef"] == 0.2


def test_mlflow(reported):
    pytest.importorskip("mlflow")
    import mlflow

    run = reported("mlflow")
    (found,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
    assert (found.info.run_id, found.info.run_name, found.info.status) == (run.ids["mlflow"], "ppo/gentle", "FINISHED")
    assert found.data.params["ppo.kl_coef"] == "0.2" and found.data.tags["stage"] == "ppo"
    history = mlflow.MlflowClient().get_metric_history(run.ids["mlflow"], "train/loss")
    assert [(metric.step, metric.value) for metric in history] == [(n, n / 2) for n in (1, 2, 3, 4)]
    table = mlflow.load_table("answers.json", run_ids=[run.ids["mlflow"]])
    assert list(table["answer"]) == ["<c>", "e\nf"] * 2
    assert (run.root / "mlflow/artifacts").is_dir()
