"""What is shown of the stages of a project, by locks, status files and curves as stages leave them."""

import json
import math
import os
import subprocess
import sys
import time

import pytest

from rlhf_lib.common.files import write_curve
from rlhf_lib.watch import view as views
from rlhf_lib.watch.found import WORKSPACES, gpus, read_curve, stages
from rlhf_lib.watch.view import view

TRAIN = [{"step": 10 * i, "grad_norm": 0.5, "loss": 4.0 - i / 4} for i in range(1, 13)]
STATUS = {
    "phase": "training",
    "unit": "step",
    "done": 123,
    "total": 824,
    "seconds_each": 0.5,
    "epoch": 0.6,
    "epochs": 4.0,
    "tokens_per_second": 9876.5,
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(views, "gpus", lambda: iter(()))
    return tmp_path


@pytest.fixture
def process():
    """One that is there, for an experiment, and holds some memory."""
    env = {**os.environ, "DVC_EXP_NAME": "gentle"}
    command = [sys.executable, "-c", "x = bytearray(50 << 20); print('up', flush=True); input()"]
    running = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    running.stdout.readline()
    yield running
    running.kill()
    running.communicate()


def lock(root, name, text, age=0.0):
    file = root / f".dvc/tmp/stages/{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    os.utime(file, (time.time() - age,) * 2)
    return file


def tell(root, name, pid, **changes):
    status = {"pid": pid, "written": time.time(), **STATUS, **changes}
    (root / f".dvc/tmp/stages/{name}.json").write_text(json.dumps(status))


def shown(root, width=100):
    return view(stages(root), root, width)


def test_a_project_where_nothing_has_run(root):
    assert shown(root) == ["no stage runs; this waits for one"]


def test_a_training_with_its_progress_and_curves(root, process):
    lock(root, "sft", f"{process.pid}\n")
    tell(root, "sft", process.pid)
    write_curve(root / "metrics/sft/train.tsv", TRAIN)
    write_curve(root / "metrics/sft/eval.tsv", [{"step": 100, "eval_loss": 1.5}])
    lines = shown(root)
    title, memory = lines[0].rsplit(" · ", 1)
    assert title in ("sft of experiment gentle · training · 0 s", "sft of experiment gentle · training · 1 s")
    assert 50 <= float(memory.removesuffix(" MiB")) < 200
    assert lines[1] == "█" * 14 + "░" * 80 + "  14 %"
    # 701 steps at half a second
    assert lines[2] == "step 123 of 824 · epoch 0.60 of 4 · 2 steps/s · 9,876 tokens/s · 5 min 50 s left"
    at = lines.index("training, to step 120")
    assert lines[at + 1].split() == ["loss", "1", "██▇▆▆▅▄▃▃▂▁▁", "1", "to", "3.75"]
    assert lines[at + 2].split() == ["grad_norm", "0.5", "▅" * 12, "0.5", "to", "0.5"]
    at = lines.index("validation, to step 100")
    assert lines[at + 1].split() == ["eval_loss", "1.5", "▅", "1.5", "to", "1.5"]
    at = lines.index("loss by step")
    assert lines[at + 1].startswith("      3.75 █▇▇▆▆") and lines[at + 6].endswith("██▇▇▆▆▅▅▄▄▃▃▂▂▁")


def test_a_training_that_ended_early_has_no_time_left(root, process):
    lock(root, "sft", f"{process.pid}\n")
    tell(root, "sft", process.pid, phase="trained")
    lines = shown(root)
    assert "trained; its outs are measured and written" in lines[0]
    assert lines[2] == "step 123 of 824 · epoch 0.60 of 4 · 2 steps/s · 9,876 tokens/s · stopped early"
    tell(root, "sft", process.pid, phase="trained", done=824)
    assert "early" not in shown(root)[2] and "left" not in shown(root)[2]


def test_ppo_counts_rollouts_and_shows_its_reward(root, process):
    lock(root, "ppo", f"{process.pid}\n")
    tell(root, "ppo", process.pid, unit="rollout", done=3, total=40, seconds_each=20.0, epoch=None, epochs=None)
    rows = [{"step": i, "kl": i / 10, "loss": 1.0, "reward": i - 2.0} for i in (1, 2, 3)]
    write_curve(root / "metrics/ppo/train.tsv", rows)
    lines = shown(root)
    assert lines[2] == "rollout 3 of 40 · 20 s/rollout · 9,876 tokens/s · 12 min 20 s left"
    rows = [line.split()[:2] for line in lines if line.startswith("  ")]
    assert rows[:3] == [["reward", "1"], ["kl", "0.3"], ["loss", "1"]]
    assert "reward by step" in lines


def test_a_stage_that_does_not_train_has_its_name_and_its_time(root, process):
    lock(root, "evaluate@ppo", f"{process.pid}\n", age=65)
    # its start says that the process was there then
    assert not stages(root)[0].runs
    lock(root, "evaluate@ppo", f"{process.pid}\n")
    assert shown(root)[0].startswith("evaluate@ppo of experiment gentle · at work · 0 s · ")


def test_a_training_that_has_not_begun_does_not_show_the_one_before(root, process):
    lock(root, "sft", f"{process.pid}\n")
    tell(root, "sft", process.pid + 1)
    write_curve(root / "metrics/sft/train.tsv", TRAIN)
    assert shown(root)[0].startswith("sft of experiment gentle · at work · ") and shown(root)[1] == ""


def test_between_stages_and_after_the_last(root):
    lock(root, "load", "12345\ndone 3.2\n", age=200)
    lock(root, "prepare", "12346\nfailed 61.0\n", age=100)
    lock(root, "base", "12347\nstopped 2.0\n", age=50)
    lines = shown(root)
    assert lines[0] == "no stage runs; this waits for one"
    assert [line.replace("51", "50").replace("41 s", "40 s") for line in lines[1:]] == [
        "last: base, stopped 50 s ago after 2 s",
        "before: prepare, failed 1 min 40 s ago after 1 min 1 s",
        "before: load, done 3 min 20 s ago after 3 s",
    ]


def test_a_stage_that_was_killed_says_so(root, process):
    process.kill()
    process.wait()
    lock(root, "sft", f"{process.pid}\n", age=30)
    assert shown(root)[1].replace("31", "30") == "last: sft, begun 30 s ago, ended without a word (killed?)"


@pytest.mark.parametrize("folder", ["", "a [1]/project"])
def test_every_workspace_of_dvc_and_of_a_study_is_looked_at(root, process, folder):
    """Where the project is a whole repository, or a folder of one."""
    (root / ".git").mkdir()
    root = root / folder
    for place in ("exps/tmp1", "exps/standalone/tmp2", "study/worker-0", f"study/worker-0/{folder}/.dvc/tmp/exps/tmp3"):
        lock(root / ".dvc/tmp" / place / folder, "ppo", f"{process.pid}\n")
    assert len(stages(root)) == 4 == sum("ppo of experiment gentle" in line for line in shown(root))
    assert len(WORKSPACES) == len(set(WORKSPACES))


@pytest.mark.parametrize("text", ["", "\n", "no number\n", "-5\n", "0\n", "1\ndone\n", "1\ndone nan\n", "1\ndone x"])
def test_a_lock_into_which_nothing_is_written_yet_or_that_is_none_is_left_out(root, text):
    lock(root, "sft", text)
    assert stages(root) == []


def test_a_status_that_is_no_status_is_none(root, process):
    lock(root, "sft", f"{process.pid}\n")
    broken = ({"phase": ["training"]}, {"done": "3"}, {"total": None}, {"unit": 1}, {"written": "now"})
    whole = {"pid": process.pid, "written": 1.0, **STATUS}
    texts = [json.dumps({**whole, **change}) for change in broken]
    for text in ("", "[1]", "{", json.dumps({"pid": process.pid}), *texts):
        (root / ".dvc/tmp/stages/sft.json").write_text(text)
        assert shown(root)[1] == ""


def test_lines_are_no_longer_than_the_terminal_is_wide(root, process):
    lock(root, "sft", f"{process.pid}\n")
    tell(root, "sft", process.pid)
    write_curve(root / "metrics/sft/train.tsv", TRAIN)
    for width in (20, 40, 79, 200):
        assert max(map(len, shown(root, width))) <= min(width, 100)


def test_cells_without_a_number_are_not_shown(root, process):
    (root / "metrics").mkdir()
    (root / "metrics/c.tsv").write_text("step\tloss\tkl\n1\tnan\t\n2\t3.5\n")
    curve = read_curve(root / "metrics/c.tsv")
    assert curve["step"] == [1.0, 2.0] and curve["loss"][1] == 3.5
    assert [math.isnan(value) for value in (curve["loss"][0], *curve["kl"])] == [True] * 3


def test_what_nvidias_tool_says(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '0, 12288, 81920, 97'\necho '1, 512, 81920, 0'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert [*gpus()] == ["GPU 0: 12.0 of 80 GiB, 97 % busy", "GPU 1: 0.5 of 80 GiB, 0 % busy"]
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nexit 9\n")
    assert [*gpus()] == []
