"""Reward functions that misbehave, in stage ppo."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from base_attacks import folder_of
from copied_project import copy_of_project
from copied_project import run as run_in
from ended_commands import ENV, hold, run, untold
from hostile_rewards import REWARDS, SOUND

from rlhf_lib.ppo.rewards import RewardFunctions

WRITTEN = ("models/ppo/model.safetensors", "data/samples/ppo_training.jsonl", "metrics/ppo/summary.json")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose stages before ppo have run, with a reward function of its own."""
    folder = copy_of_project(tmp_path_factory.mktemp("whole"))
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["ppo"] |= {"reward_funcs": ["rewards.mine:reward"], "reward_weights": None}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "rewards/mine.py").write_text(SOUND)
    run_in(folder, "dvc", "repro", "-q", "ppo")
    return folder


def digests(folder: Path) -> list[str]:
    return [hashlib.md5((folder / name).read_bytes()).hexdigest() for name in WRITTEN]


def copy_for(case: str, project: Path, folder: Path) -> Path:
    """A project to run ppo in, with the case's module and nothing of the runs before."""
    copied = folder / folder_of(case)
    shutil.copytree(project, copied, symlinks=True, ignore=shutil.ignore_patterns("cache", "ppo"))
    shutil.copytree(project / "rlhf_lib/ppo", copied / "rlhf_lib/ppo")
    (copied / WRITTEN[1]).unlink()
    (copied / "rewards/mine.py").write_text(REWARDS[case].text)
    return copied


def attempted(case: str, project: Path, folder: Path) -> str | None:
    """What does not hold of stage ppo with the case's function; None where all does."""
    copied = copy_for(case, project, folder)
    env = {**ENV, "PYTHONPATH": str(copied)}
    checked = run([sys.executable, "-m", "rlhf_lib.check"], copied, env)
    if checked.code not in (0, 1) or "Traceback" in checked.stderr:
        return f"check: exit code {checked.code}: {checked.stderr[-600:]}"
    ended = run([sys.executable, "-m", "stages.ppo"], copied, env)
    reward = REWARDS[case]
    if reward.told is not None:
        told = untold(ended, reward.told)
        return told or next((f"{name} was written" for name in WRITTEN if (copied / name).exists()), None)
    if reward.ends:  # nothing can tell; DVC looks for the outs
        return "an out was written" if (copied / WRITTEN[0]).exists() else None
    if ended.code != 0:
        return f"exit code {ended.code}: {ended.stderr[-600:]}"
    return None if digests(copied) == digests(project) else "another policy"


@pytest.mark.slow
@pytest.mark.faults
def test_every_reward_function_is_told_or_does_no_harm(project: Path, tmp_path: Path) -> None:
    hold("reward functions that misbehave", list(REWARDS), lambda case: attempted(case, project, tmp_path))


@pytest.mark.slow
@pytest.mark.faults
def test_dvc_takes_no_end_of_a_function_for_a_stages(project: Path, tmp_path: Path) -> None:
    copied = copy_for("os._exit(0)", project, tmp_path)
    env = {key: value for key, value in ENV.items() if key != "PYTHONPATH"}
    ended = run(["dvc", "repro", "ppo"], copied, {**env, "DVC_NO_ANALYTICS": "1"})
    assert ended.code and "does not exist" in ended.stderr, ended.stderr
    assert not (copied / "models/ppo").exists()


@pytest.mark.slow
@pytest.mark.faults
def test_a_function_that_never_returns_ends_with_ctrl_c(project: Path, tmp_path: Path) -> None:
    copied = copy_for("sound", project, tmp_path)
    (copied / "rewards/mine.py").write_text(
        "def reward(completions, **columns):\n    open('asked', 'w').close()\n    while True: pass\n"
    )
    env = {**ENV, "PYTHONPATH": str(copied)}
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.ppo"],
        cwd=copied,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    end = time.monotonic() + 120
    while not (copied / "asked").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert errors.splitlines()[-1] == "ppo: interrupted; dvc repro goes on where it stopped"


def test_some_are_told_or_do_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, of three rows: those that would not end it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "misbehaving").mkdir()
    texts = ["Cat.", "", "A dog."]
    some = random.Random(2).sample([case for case, reward in REWARDS.items() if not reward.ends], 12)

    def attempt(case: str) -> str | None:
        name = folder_of(case).replace("-", "_")
        (tmp_path / f"misbehaving/{name}.py").write_text(REWARDS[case].text)
        try:
            rewards = RewardFunctions.load([f"misbehaving.{name}:reward"], None, True)
            rewards.check([])
            got = rewards([[{"role": "user", "content": "Name it."}]] * 3, texts, {})
        except SystemExit as fault:
            told = str(fault)
            return None if REWARDS[case].told and told.isprintable() and len(told) < 800 else told
        return None if REWARDS[case].told is None and got.total == [4.0, 0.0, 6.0] else f"gave {got.total}"

    with patch.dict(os.environ):  # one of them clears it
        before = {case: attempt(case) for case in some}
    assert {case: fault for case, fault in before.items() if fault} == {}
