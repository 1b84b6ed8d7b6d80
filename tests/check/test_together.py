"""Faults between sections, and paths that are not there: every one is told, in a line of its own."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from checked import with_values
from shipped_params import fault

from rlhf_lib.check import inputs, patterns
from rlhf_lib.check.__main__ import check
from rlhf_lib.check.sections import check_all, faults, valid_sections

PROJECT = pytest.mark.usefixtures("folder")


FILE = {"reader": "file", "path": "rows.jsonl"}
MEMORY = round(psutil.virtual_memory().total / 2**30)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"load.instructions": 5166}, []),
        (
            {"load.instructions": 5167},
            ["load.instructions: must be at most 5166, which is all that the demo has; got 5167"],
        ),
        ({"load.instructions": 5167, "load.sources": [FILE]}, []),
        (
            {"prepare.mixture": {"hh": {}}},
            ["prepare.mixture.hh: no source of that name; load.sources has: demo"],
        ),
        ({"load.sources": [{"reader": "ultrachat"}]}, []),
        ({"prepare.mixture": {"demo": {"roles": ["dpo", "test"]}}}, []),
        (
            {
                "load.sources": [{"reader": "demo"}, {"reader": "sft_static"}],
                "prepare.mixture": {"sft_static": {"roles": ["prompts"]}},
            },
            ["prepare.mixture.sft_static.roles: the source cannot have the role prompts; its rows can have: sft, test"],
        ),
        (
            {"sft.max_length": 161, "judge.max_length": 161},
            [
                f"{name}.max_length: 161 tokens, but the fresh model has base.n_positions: 160; lower it"
                for name in ("sft", "judge")
            ],
        ),
        ({"evaluate.sources": ["demo", "demo/easy"]}, []),
        (
            {"load.sources": [{"reader": "demo"}, {"reader": "hh"}], "evaluate.sources": ["hh/helpful-base", "puns"]},
            ["evaluate.sources: no source 'puns'; load.sources has: demo, hh"],
        ),
        ({"evaluate.temperatures": [0.0], "best_of_n.n": []}, []),
        (
            {"evaluate.temperatures": [0.0, 1.0]},
            [
                "best_of_n.n: the answers are drawn at the first of evaluate.temperatures, which is 0, so that all of "
                "a prompt's are the same; put a temperature above 0 first, or set best_of_n.n to []"
            ],
        ),
        ({"candidates.n": 4, "rft.n": 4}, []),
        (
            {"candidates.n": 4},
            ["rft.n: must be at most candidates.n, which is 4; got 8; raise candidates.n, or lower it"],
        ),
        ({"methods.rft": True, "methods.rft_random": True}, []),
        (
            {"methods.rft_random": True},
            [
                "methods.rft_random: is the control of rft, and needs what that one does; set methods.rft to true too",
            ],
        ),
        (
            {"methods.rft": True, "rft.max_length": 161, "candidates.max_new_tokens": 160},
            [
                "rft.max_length: 161 tokens, but the fresh model has base.n_positions: 160; lower it",
                "candidates.max_new_tokens: 160 tokens leave no room for a prompt in base.n_positions: 160; lower it",
            ],
        ),
        (
            {"ppo.response_length": 160},
            ["ppo.response_length: 160 tokens leave no room for a prompt in base.n_positions: 160; lower it"],
        ),
        ({"ppo.response_length": 152, "evaluate.max_new_tokens": 152}, []),  # a prompt has eight tokens
        (
            {"evaluate.max_new_tokens": 153, "methods.ppo": False, "ppo.response_length": 153},
            [
                "evaluate.max_new_tokens: 153 tokens leave no room for a prompt in base.n_positions: 160; lower it",
                "ppo.response_length: 153 tokens leave no room for a prompt in base.n_positions: 160; lower it",
            ],
        ),
        ({"methods.ppo": False, "attainable.n": 0, "ppo.response_length": 153}, []),  # nothing has it
        ({"negatives.max_new_tokens": 153}, []),
        (
            {"negatives.max_new_tokens": 153, "negatives.model_name_or_path": "models/base"},
            ["negatives.max_new_tokens: 153 tokens leave no room for a prompt in base.n_positions: 160; lower it"],
        ),
        (
            {"prepare.drop_patterns": ["^ok$", r"(\w+)+!"]},
            [
                r"prepare.drop_patterns: '(\\w+)+!' takes seconds on a short text; let no part that repeats, such as "
                "a+, be repeated again, as in (a+)+"
            ],
        ),
        (
            {"reward.loss_type": "mse", "reward.bounded": True, "ppo.critic": "separate"},
            [
                "ppo.critic: separate starts from the reward model, whose rewards are bounded (reward.bounded), as "
                "values are not; set it to shared"
            ],
        ),
        (
            {"ppo.report_to": ["wandb"]},
            [
                "ppo.report_to: unknown key; trackers are named in the environment, for every stage that trains; take "
                "this out, and run make repro REPORT_TO=tensorboard, or REPORT_TO=tensorboard dvc repro"
            ],
        ),
    ],
)
def test_what_does_not_fit_together_is_told(changes, expected, monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 1)
    assert faults(with_values(changes)) == [f"params.yaml: {text}" for text in expected]


@pytest.mark.skipif(MEMORY > 358, reason="has the memory")
def test_a_model_larger_than_memory_is_told():
    # 12 x 5 x 40,000^2 + (1,024 + 160) x 40,000 weights of 4 bytes
    assert faults(with_values({"base.n_embd": 40_000, "base.n_layer": 5})) == [
        "params.yaml: base.n_embd: the weights of the fresh model would take 358 GiB, and this machine has "
        f"{MEMORY} GiB; make it or its layers fewer"
    ]


def test_every_fault_is_told_and_the_first_names_their_number():
    params = with_values({"sft.seed": -1, "sft.learning_rate": "fast", "dpo.beta": 0, "ppo.report_to": ["x"]})
    params |= {"policy": "best", "extra": 1}
    del params["report"]
    told = faults(params)
    names = ["policy", "extra", "sft.seed", "sft.learning_rate", "dpo.beta", "report", "ppo.report_to"]
    assert sorted(text.split(": ")[1] for text in told) == sorted(names)
    assert fault(check_all, params) == f"{told[0]} (and 6 more: python -m rlhf_lib.check)"


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(x+x+)+y", r"^(\d+)*$", r"(.*a){25}b", r"\s+" * 6 + "x"])
def test_patterns_without_end_are_found(pattern, monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 1)
    assert list(patterns.too_slow([pattern])) == [pattern]


def test_only_the_first_patterns_without_end_are_waited_for(monkeypatch):
    monkeypatch.setattr(patterns, "SECONDS", 1)
    assert len(list(patterns.too_slow([rf"(a+)+{n}" for n in range(100)]))) == 3


def test_ordinary_patterns_are_taken():
    ordinary = [r"https?://\S+", r"(?i)\bas an ai\b.*model", r"^\s*$|^\W+$", r"(\w+ ){3}", r"\d{1,3}(,\d{3})+", "a+|b+"]
    assert list(patterns.too_slow(ordinary)) == []


# ---- paths


BRING = "or bring it here (what `dvc add` tracks comes with `dvc pull PATH`)"


@PROJECT
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"load.sources": [FILE]}, [f"load.sources[0].path: rows.jsonl: no such file; correct the path, {BRING}"]),
        (
            {"load.sources": [{"reader": "hh", "path": "*.jsonl"}]},
            [
                "load.sources[0].path: *.jsonl: no file matches; correct the pattern ('**' matches folders of any "
                f"depth), {BRING}"
            ],
        ),
        (
            {"base.model_name_or_path": "./mine"},
            [
                "base.model_name_or_path: ./mine: no such directory; correct it, name a model of the hub (owner/name), "
                f"{BRING}"
            ],
        ),
        (
            {"base.model_name_or_path": "~root/mine"},
            [f"base.model_name_or_path: ~root/mine: write it in full: {os.path.expanduser('~root/mine')}"],
        ),
        (
            {"base.model_name_or_path": "params.yaml"},
            [
                "base.model_name_or_path: params.yaml: is a file; name the directory of a model, or a model of the hub "
                "(owner/name)"
            ],
        ),
        ({"base.model_name_or_path": "owner/name"}, []),
        (
            {
                "negatives.model_name_or_path": "./gone",
                "reward.model_name_or_path": "./mine",
                "ppo.reward_funcs": ["models/reward", "rewards/gone"],
            },
            [
                f"negatives.model_name_or_path: ./gone: no such directory; correct it, {BRING}",
                f"reward.model_name_or_path: ./mine: no such directory; correct it, {BRING}",
                f"ppo.reward_funcs[1]: rewards/gone: no such directory; correct it, {BRING}",
            ],
        ),
        (
            {"ppo.reward_funcs": ["rewards.gone:score"]},
            ["ppo.reward_funcs[0]: rewards.gone: no such module; rewards/gone.py is looked for in the project's root"],
        ),
        ({"ppo.reward_funcs": ["rewards.examples:brevity", "rewards.examples:demo_gold"]}, []),
        ({"llm_judge.rubric": "rubrics/gone.md"}, None),
    ],
)
def test_what_is_not_there_is_told(changes, expected):
    found = list(inputs.faults(valid_sections(with_values(changes))))
    if expected is None:
        expected = ["llm_judge.rubric: rubrics/gone.md: no such file; rubrics/ has those that come with the project"]
    assert found == expected


def test_a_reward_function_is_looked_for_without_running_its_module(folder: Path):
    (folder / "mine.py").write_text("raise SystemExit('run')\n\ndef score(**columns): ...\n")
    (folder / "odd.py").write_text("def score(:\n")
    (folder / "all.py").write_text("from mine import *\n")
    entries = ["mine:score", "mine:scores", "odd:score", "all:score"]
    told = list(inputs.faults(valid_sections(with_values({"ppo.reward_funcs": entries}))))
    assert told[0] == "ppo.reward_funcs[1]: mine.py has no scores; it has score"
    assert told[1].startswith("ppo.reward_funcs[2]: odd.py is not Python: ") and len(told) == 2


LONG = "y" * 300  # longer than a file's name may be


@PROJECT
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("launch", LONG),
        ("launch", f"accelerate launch --config_file {LONG}"),
        ("base.model_name_or_path", f"./{LONG}"),
        ("reward.model_name_or_path", LONG),
        ("judge.model_name_or_path", f"./{LONG}"),
        ("load.sources", [{"reader": "file", "path": LONG}]),
        ("load.sources", [{"reader": "file", "path": f"{LONG}/*.csv"}]),
        ("ppo.reward_funcs", [LONG]),
        ("ppo.reward_funcs", [f"models/{LONG}"]),
        ("ppo.reward_funcs", [f"rewards.{LONG}:f"]),
    ],
)
def test_a_name_that_no_file_can_have_is_told(key, value):
    params = {**with_values({}), key: value} if key == "launch" else with_values({key: value})
    (line,) = check(params)[0]
    assert line.startswith(f"params.yaml: {key}")


@PROJECT
@pytest.mark.parametrize(
    ("launch", "changes", "told"),
    [
        ("--config_file launch/cpu-2.yaml", {}, ["2 processes with 32 each must divide a minibatch of 32 responses"]),
        ("--config_file launch/cpu-2.yaml", {"ppo.per_device_train_batch_size": 16}, []),
        ("--config_file launch/cpu-2.yaml", {"methods.ppo": False}, []),
        ("--config_file=launch/gpus.yaml --num_processes 1", {}, []),
        ("--num-processes=3", {}, ["3 processes with 32 each must divide a minibatch of 32 responses"]),
        ("", {}, []),  # as many as there are GPUs
    ],
)
def test_a_minibatch_that_the_processes_cannot_share_is_told(launch, changes, told):
    params = {**with_values(changes), "policy": "dpo", "launch": f"accelerate launch {launch}"}
    assert check(params)[0] == [f"params.yaml: ppo.per_device_train_batch_size: {line}" for line in told]
