"""The command on a model of the hub, and as a user starts and kills it: in processes of its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from hub_processes import COMMIT, start
from project import DEMO, ROOT
from standin_hub import StandInHub
from tiny_models import TEXTS


@pytest.fixture
def work(tmp_path, tiny):
    """A project with a model and a file of prompts."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copy(DEMO, folder / "params.yaml")
    shutil.copytree(tiny.policy, folder / "models/dpo")
    (folder / "prompts.txt").write_text("".join(f"{text}\n" for text in TEXTS * 10))
    return folder


@pytest.mark.slow
def test_a_model_of_the_hub_answers_as_its_directory(tiny, work, tmp_path):
    command = ("-m", "rlhf_lib.answering")
    with StandInHub() as hub:
        hub.add("models", "o/policy", tiny.policy, COMMIT)
        for name, out in ((f"o/policy@{COMMIT}", "hub.csv"), ("models/dpo", "directory.csv")):
            process = start(hub, tmp_path / "home", *command, name, "prompts.txt", "--out", out, cwd=work)
            _, error = process.communicate(timeout=120)
            assert process.returncode == 0, error
        process = start(hub, tmp_path / "home", *command, f"o/nothing@{COMMIT}", "prompts.txt", cwd=work)
        _, error = process.communicate(timeout=120)
    assert process.returncode == 1 and f"o/nothing@{COMMIT}: cannot be loaded as a language model: no model o/" in error
    assert (work / "hub.csv").read_bytes() == (work / "directory.csv").read_bytes()


@pytest.mark.slow
def test_a_command_that_was_killed_ends_with_the_bytes_of_one_that_was_not(work):
    options = ["--temperature=1", "--batch_size=1", "--max_new_tokens=40"]

    def begin(out):
        command = [sys.executable, "-m", "rlhf_lib.answering", "models/dpo", "prompts.txt", "--out", out, *options]
        return subprocess.Popen(
            command, cwd=work, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
        )

    assert begin("whole.jsonl").wait(timeout=120) == 0
    killed, part = begin("answers.jsonl"), work / "answers.jsonl.part"
    while killed.poll() is None and not (part.is_file() and part.read_bytes().count(b"\n") > 2):
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    made = [json.loads(line) for line in part.read_bytes().split(b"\n")[1:-1]]
    assert len(made) >= 2 and not (work / "answers.jsonl").exists()
    assert begin("answers.jsonl").wait(timeout=120) == 0 and not part.exists()
    assert (work / "answers.jsonl").read_bytes() == (work / "whole.jsonl").read_bytes()
