import dataclasses
import os
import re
import subprocess
import sys

import pytest
from preset_names import PRESETS
from project import ROOT
from shipped_params import PARAMS, shipped

from rlhf_lib.check.sections import SECTIONS, check_all
from rlhf_lib.common import schema
from rlhf_lib.preset import overlay as preset

# ---- the file that ships


@pytest.mark.parametrize("name", SECTIONS)
def test_the_file_holds_exactly_the_fields_of_the_section(name):
    read = schema.read(name, SECTIONS[name], PARAMS)
    assert list(shipped()[name]) and set(shipped()[name]) == {field.name for field in dataclasses.fields(read)}


def test_the_file_holds_exactly_the_sections():
    assert list(shipped()) == ["policy", "launch", *SECTIONS]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_params_that_hold(name):
    params = shipped()
    assert preset.overlay(params, list(preset.leaves(schema.load_yaml(ROOT / f"presets/{name}.yaml"))), name)
    check_all(params, PARAMS)


# ---- the stages


def run_stage(directory, stage, *arguments, params=None):
    """Run a stage on params.yaml with its text changed; a torch that must not be imported lies in the way."""
    if params is not None:
        (directory / "params.yaml").write_text(params, encoding="utf-8")
    (directory / "without").mkdir(exist_ok=True)
    (directory / "without/torch.py").write_text("raise AssertionError('torch was imported')")
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": f"{directory / 'without'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def with_value(name, key, value):
    """The text of params.yaml with one value of one section replaced."""
    pattern = re.compile(rf"(^{name}:\n(?:(?:  .*)?\n)*?  ){key}:.*(?:\n  - .*)*$", re.MULTILINE)
    text, count = pattern.subn(rf"\g<1>{value}", PARAMS.read_text(encoding="utf-8"))
    assert count == 1
    return text


def assert_one_line(done, *words):
    assert done.returncode != 0 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize(
    ("stage", "key", "value", "words"),
    [
        ("sft", "learning_rate", "learning_rat: 1.0e-3", ["sft.learning_rat", "learning_rate"]),
        ("sft", "learning_rate", "learning_rate: fast", ["sft.learning_rate", "'fast'"]),
        ("sft", "max_length", "max_length: 2", ["sft.max_length", "at least 8"]),
        ("ppo", "cliprange", "clip_range: 0.2", ["ppo.clip_range", "ppo.cliprange"]),
        ("ppo", "total_rollouts", "total_rollouts: 1.5", ["ppo.total_rollouts", "1.5"]),
        ("ppo", "gamma", "gamma: 1.01", ["ppo.gamma", "at most 1"]),
        ("ppo", "num_generations", "num_generations: 7", ["ppo.num_generations", "must divide rollout_batch_size"]),
        ("ppo", "reward_funcs", "reward_funcs: [a:b:c]", ["ppo.reward_funcs", "module:function"]),
        ("evaluate", "seed", "sead: 0", ["evaluate.sead", "evaluate.seed"]),
        ("evaluate", "temperatures", "temperatures: 1.0", ["evaluate.temperatures", "a list"]),
        ("evaluate", "samples_per_prompt", "samples_per_prompt: 0", ["evaluate.samples_per_prompt", "at least 1"]),
    ],
)
def test_a_stage_tells_a_fault_in_one_line_before_it_loads_torch(tmp_path, stage, key, value, words):
    arguments = ["ppo"] if stage == "evaluate" else []
    assert_one_line(run_stage(tmp_path, stage, *arguments, params=with_value(stage, key, value)), "params.yaml", *words)


@pytest.mark.parametrize("stage", ["evaluate", "select"])
def test_a_stage_tells_an_unknown_policy_in_one_line(tmp_path, stage):
    done = run_stage(tmp_path, stage, "nosuch", params=PARAMS.read_text(encoding="utf-8"))
    assert_one_line(done, "nosuch", "sft, ppo, dpo")


@pytest.mark.parametrize("stage", ["load", "sft", "select"])
def test_every_stage_refuses_an_unknown_policy_param(tmp_path, stage):
    params = PARAMS.read_text(encoding="utf-8").replace("policy: ppo", "policy: nosuch")
    arguments = ["ppo"] if stage == "select" else []
    assert_one_line(run_stage(tmp_path, stage, *arguments, params=params), "policy", "nosuch", "sft, ppo, dpo")


def test_a_stage_outside_the_project_says_so(tmp_path):
    assert_one_line(run_stage(tmp_path, "sft"), "params.yaml", "project's root")
