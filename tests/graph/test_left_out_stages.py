"""The stages' own entry points where nothing gives them rows: they end well at once, and load no model library."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from project import ROOT

from rlhf_lib.common import paths
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.data.prepare.records import FILES
from stages import llm_judge

LEFT_OUT = [
    ("reward", "no source gives preferences"),
    ("judge", "no source gives preferences"),
    ("reference", "no source gives preferences"),
    ("dpo", "no source gives preferences"),
    ("ppo", "no source gives prompts for PPO"),
    ("candidates", "methods.rft is false"),
    ("rft", "methods.rft is false"),
    ("rft_random", "methods.rft_random is false"),
    ("evaluate@rft", "methods.rft is false"),
    ("measure@rft", "no answers of rft, which was left out"),
    ("evaluate@dpo", "no source gives preferences"),
    ("evaluate@ppo", "no source gives prompts for PPO"),
    ("best_of_n", "no source gives preferences"),
    ("attainable", "no source gives preferences"),
    ("attained", "no answers of attainable, which was left out"),
    ("measure@dpo", "no answers of dpo, which was left out"),
    ("measure@ppo", "no answers of ppo, which was left out"),
    ("measure@best_of_n", "no answers of best_of_n, which was left out"),
    ("overoptimisation", "no answers of ppo_training, which was left out"),
    ("select", "no answers of ppo, which was left out"),
]


@pytest.fixture
def folder(tmp_path):
    """A project whose data are answers for SFT alone."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in FILES:
        write_jsonl(tmp_path / paths.split(name), [{"id": "a"}] if name in ("sft_train", "test") else [])
    return tmp_path


# Runs stages one after the other in one process, and says at last whether a model library was loaded.
CODE = """
import importlib, sys
for stage in {stages}:
    name, _, item = stage.partition("@")
    sys.argv = [name, *([item] if item else [])]
    try:
        importlib.import_module(f"stages.{{name}}").main()
    except SystemExit as end:
        assert end.code == 0, end.code
print("torch" in sys.modules)
"""


def test_each_stage_after_the_other(folder):
    stages = ["negatives", *(stage.replace("select", "select@ppo") for stage, _ in LEFT_OUT)]
    command = [sys.executable, "-c", CODE.format(stages=stages)]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.splitlines() == [*(f"{stage}: left out: {why}" for stage, why in LEFT_OUT), "False"]
    assert json.loads((folder / paths.POLICY_METRICS).read_text()) == {"left_out": LEFT_OUT[-1][1]}


def test_ppo_goes_on_where_the_rewards_are_functions(folder):
    """So it looks for what it reads, the first of which is not there."""
    write_jsonl(folder / paths.split("prompts_train"), [{"id": "a"}])
    params = load_yaml(folder / "params.yaml")
    for funcs, critic, expected in (
        (["models/reward"], "shared", "left out: no source gives preferences"),
        (["rewards.examples:brevity"], "separate", "left out: no source gives preferences"),
        (["rewards.examples:brevity"], "shared", "data/inputs/ppo.json: no such file"),
    ):
        params["ppo"] |= {"reward_funcs": funcs, "critic": critic}
        (folder / "params.yaml").write_text(yaml.safe_dump(params))
        model = folder / paths.REWARD
        model.mkdir(parents=True, exist_ok=True)
        (model / "left_out.txt").write_text("no source gives preferences\n")
        command = [sys.executable, "-m", "stages.ppo"]
        done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert expected in done.stdout + done.stderr
        assert (done.returncode == 0) == ("left out" in expected)


def test_a_fresh_base_model_needs_answers(folder):
    write_jsonl(folder / paths.split("sft_train"), [])
    command = [sys.executable, "-m", "stages.base"]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode != 0
    told = "params.yaml: base.model_name_or_path: no source gives answers to learn from, from which a fresh model has "
    assert done.stderr == f"{told}its tokens; name a pretrained model\n"


def test_a_model_that_was_left_out_is_not_talked_to(folder):
    model = Path(folder / paths.DPO)
    model.mkdir(parents=True)
    (model / "left_out.txt").write_text("no source gives preferences\n")
    command = [sys.executable, "-m", "rlhf_lib.talk", "chat", "models/dpo"]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "models/dpo: no model in it: no source gives preferences\n"


def test_a_comparison_by_a_language_model_needs_both_policies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for policy, rows in (("sft", [{}]), ("dpo", [{}]), ("ppo", [])):
        write_jsonl(paths.samples(policy), rows)
    assert [llm_judge.can_be_made(name) for name in ("ppo-sft", "dpo-sft", "ppo-dpo")] == [False, True, False]
    assert capsys.readouterr().out == "".join(
        f"llm_judge: {name}: left out: no answers of ppo, which was left out\n" for name in ("ppo-sft", "ppo-dpo")
    )


def test_where_there_are_only_thumbs_the_lines_say_so(folder):
    """And the outs do not, as the stages do not depend on the thumbs."""
    for name in ("thumbs_train", "prompts_train"):
        write_jsonl(folder / paths.split(name), [{"id": "a"}])
    stages = ["negatives", "reward", "judge", "reference", "dpo", "ppo", "kto", "evaluate@kto"]
    command = [sys.executable, "-c", CODE.format(stages=stages)]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    only = "left out: only thumbs: no pairs; kto learns from them (methods.kto=true)"
    assert done.stdout.splitlines() == [
        *(f"{stage}: {only}" for stage in ("reward", "judge", "reference", "dpo", "ppo")),
        *(f"{stage}: left out: methods.kto is false" for stage in ("kto", "evaluate@kto")),
        "False",
    ]
    assert json.loads((folder / paths.summary("reward")).read_text()) == {"left_out": "no source gives preferences"}


@pytest.mark.parametrize(
    ("pairs", "stages"),
    [
        ("judge_train", ["negatives", "reward", "reference"]),
        ("reward_train", ["judge"]),
        ("preference_train", ["judge"]),
    ],
)
def test_thumbs_beside_the_pairs_of_another_stage_explain_nothing(folder, pairs, stages):
    """The roles of a mixture may give all pairs to one stage: KTO learns from them as thumbs."""
    for name in ("thumbs_train", pairs):
        write_jsonl(folder / paths.split(name), [{"id": "a"}])
    command = [sys.executable, "-c", CODE.format(stages=stages)]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    told = [f"{stage}: left out: no source gives preferences" for stage in stages if stage != "negatives"]
    assert done.stdout.splitlines() == [*told, "False"]
