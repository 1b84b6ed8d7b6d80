"""A tiny SFT model, its reward model and a few prompts, for the stages candidates, rft and rft_random."""

import json
import shutil
from pathlib import Path

import pytest
from shipped_params import shipped
from tiny_models import IN_FP32, TEXTS

from rlhf_lib.common import environment
from rlhf_lib.common.rows import write_jsonl

ROWS = [
    {"id": f"{number:016x}", "source": "demo/facts", "prompt": [{"role": "user", "content": text}]}
    for number, text in enumerate(TEXTS)
]
DRAWN = {"n": 4, "max_new_tokens": 12, "per_device_eval_batch_size": 2}
LEARNT = {"n": 3, "max_length": 64, "per_device_train_batch_size": 4, "num_train_epochs": 1, "logging_steps": 1}
GRAPH = {
    "candidates": {"cmd": "x", "deps": ["data/splits"], "params": ["candidates"]},
    "rft": {"cmd": "x", "deps": ["data/candidates"], "params": ["rft"]},
    "rft_random": {"cmd": "x", "deps": ["data/candidates"], "params": ["rft"]},
}


def set_params(**changes):
    """The shipped params with both methods wanted, in fp32 on the CPU; `changes` are of the section candidates or
    rft."""
    params = shipped() | {"compute": vars(IN_FP32)}
    params["methods"] |= {"rft": True, "rft_random": True}
    params["candidates"] |= DRAWN | changes.get("candidates", {})
    params["rft"] |= LEARNT | changes.get("rft", {})
    Path("params.yaml").write_text(json.dumps(params))


@pytest.fixture
def project(tiny, ending, tmp_path, monkeypatch):
    """The folder, where the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setattr(environment, "prepare", lambda: None)  # the libraries are there already
    shutil.copytree(ending, "models/sft")
    shutil.copytree(tiny.reward, "models/reward")
    write_jsonl("data/splits/prompts_train.jsonl", ROWS)
    write_jsonl("data/splits/prompts_validation.jsonl", ROWS[:2])
    Path("dvc.yaml").write_text(json.dumps({"stages": GRAPH}))
    set_params()
    return tmp_path
