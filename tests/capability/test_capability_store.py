"""The file of the numbers, and that of each document."""

import json
import shutil
from pathlib import Path

import pytest
from lm_eval_entries import entry, rows

from rlhf_lib.capability import store
from rlhf_lib.common.dvc_project import md5
from rlhf_lib.common.files import write_json
from rlhf_lib.report import capability


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


RIGHT, LESS = rows(1, 1, 1, 0), rows(1, 0, 0, 0)


def keep_both():
    store.keep("models/sft", {"task": entry(0.75)}, {"task": RIGHT})
    return store.keep("models/ppo", {"task": entry(0.25)}, {"task": LESS})


def test_what_the_file_has_of_others_stays_and_a_second_run_gives_the_same_bytes():
    keep_both()
    store.keep("models/ppo", {"other": entry(0.1)}, {"other": LESS})
    before = Path("metrics/lm_eval.json").read_bytes()
    found = json.loads(before)
    assert found["models/ppo"].keys() == {"task", "other"} and found["models/ppo"]["task"]["acc_diff"] == -0.5
    keep_both()
    assert Path("metrics/lm_eval.json").read_bytes() == before


def test_a_trial_changes_nothing_of_what_is_kept():
    keep_both()
    before = {file: file.read_bytes() for file in Path().rglob("*.json*")}
    asked = "task, limit 2"
    store.keep("models/ppo", {asked: entry(0.5, limit=2, n=2)}, {asked: LESS[:2]}, store.TRIALS)
    assert {file: file.read_bytes() for file in before} == before
    assert store.read(store.TRIALS).keys() == {"models/ppo"}


def test_what_was_asked_otherwise_stands_beside_it():
    keep_both()
    asked = "task, 5-shot"
    found = store.keep("models/sft", {asked: entry(0.5, n_shot=5)}, {asked: RIGHT})
    assert found["models/sft"].keys() == {"task", asked}
    assert found["models/ppo"]["task"]["acc_diff"] == -0.5 and found["models/ppo"]["task"]["about"][0]["paired"]


def test_numbers_of_a_baseline_that_come_later_are_compared_too():
    store.keep("models/ppo", {"task": entry(0.25)}, {"task": LESS})
    found = store.keep("models/sft", {"task": entry(0.75)}, {"task": RIGHT})
    assert found["models/ppo"]["task"]["acc_diff"] == -0.5
    assert found["models/ppo"]["task"]["about"][0]["paired"] is True


def test_a_baseline_that_was_trained_anew_since_is_compared_with_nothing():
    weights = Path("models/sft/model.safetensors")
    weights.parent.mkdir(parents=True)
    weights.write_text("one run")
    store.keep("models/sft", {"task": entry(0.75, model_md5=md5("models/sft"))}, {"task": RIGHT})
    assert store.keep("models/ppo", {"task": entry(0.25)}, {"task": LESS})["models/ppo"]["task"]["acc_diff"] == -0.5
    weights.write_text("another run")
    found = store.keep("models/ppo", {"task": entry(0.5)}, {"task": LESS})
    assert found["models/sft"]["task"]["acc"] == 0.75 and "acc_diff" not in found["models/ppo"]["task"]
    told = capability.text(found, ["models/ppo"])
    assert "PPO, task: not compared with SFT, which was trained anew since; make lm-eval MODEL=models/sft." in told
    found = store.keep("models/sft", {"task": entry(0.75, model_md5=md5("models/sft"))}, {"task": RIGHT})
    assert found["models/ppo"]["task"]["acc_diff"] == -0.25


def test_documents_of_another_run_pair_nothing():
    keep_both()
    file = Path("data/lm_eval/models_sft/task.jsonl")
    file.write_text(file.read_text().replace("1", "0", 1))
    found = store.keep("models/ppo", {"task": entry(0.25)}, {"task": LESS})
    assert found["models/ppo"]["task"]["about"][0]["paired"] is False
    shutil.rmtree("data/lm_eval")  # as in a fresh clone
    assert store.read()["models/sft"]["task"]["acc"] == 0.75


@pytest.mark.parametrize("broken", ["{", "[]", '{"models/sft": 1}', '{"models/sft": {"task": {"acc": 1}}}'])
def test_a_broken_file_is_told_in_one_line(broken):
    Path("metrics").mkdir()
    Path("metrics/lm_eval.json").write_text(broken)
    with pytest.raises(SystemExit, match="metrics/lm_eval.json: not as make lm-eval writes it; delete it"):
        store.read()


def test_an_empty_file_is_a_start():
    write_json("metrics/lm_eval.json", {})
    assert store.read() == {}
