"""What an entry of reward_funcs names."""

import subprocess
import sys

import pytest
from one_line import told
from project import ROOT

from rlhf_lib.ppo.rewards import RewardFunctions
from rlhf_lib.scoring.source import RewardSource, needs_hub, parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


# ---- what an entry names


@pytest.mark.parametrize(
    ("entry", "source", "name"),
    [
        ("rewards.examples:brevity", RewardSource("function", "rewards.examples", attribute="brevity"), "brevity"),
        ("mine:_f2", RewardSource("function", "mine", attribute="_f2"), "_f2"),
        ("models/reward", RewardSource("directory", "models/reward"), "reward"),
        ("models/reward/", RewardSource("directory", "models/reward/"), "reward"),
        ("rewards/none", RewardSource("directory", "rewards/none"), "none"),
        ("./x", RewardSource("directory", "./x"), "x"),
        ("../x/y.z", RewardSource("directory", "../x/y.z"), "y.z"),
        ("/a/b", RewardSource("directory", "/a/b"), "b"),
        (f"owner/na.me-1@{COMMIT}", RewardSource("hub", "owner/na.me-1", revision=COMMIT), "na.me-1"),
    ],
)
def test_an_entry_is_a_function_a_directory_or_a_hub_model(entry, source, name):
    assert parse(entry) == source and source.name == name


def test_a_directory_that_exists_is_one_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "owner/name").mkdir(parents=True)
    assert parse("owner/name") == RewardSource("directory", "owner/name")
    assert parse("~/owner") == RewardSource("directory", f"{tmp_path}/owner")
    assert parse("owner/other@" + COMMIT).kind == "hub"


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("owner/name", "write owner/name@<commit>, got 'owner/name'"),
        ("owner/name@main", "write owner/name@<commit>, got 'owner/name@main'"),
        (f"owner/name@{COMMIT[:-1]}", "pinned to a commit (40 hex digits)"),
        ("reward", "'reward' is no reward"),
        (f"name@{COMMIT}", "is no reward"),
        ("", "is no reward"),
        ("a/b/c", "is no reward"),
        ("https://huggingface.co/owner/name", "named module:function"),
        ("rewards/examples.py:brevity", "as in rewards.examples:brevity, got 'rewards/examples.py:brevity'"),
        ("rewards.examples:", "named module:function"),
        (":f", "named module:function"),
        ("a..b:f", "named module:function"),
        ("a:b:c", "named module:function"),
    ],
)
def test_a_malformed_entry_is_told(entry, text):
    with pytest.raises(ValueError) as error:
        parse(entry)
    assert str(error.value).startswith("reward_funcs: ") and text in str(error.value) and "\n" not in str(error.value)
    load = told(RewardFunctions.load, [entry], None, True)
    assert load == f"params.yaml: ppo.{error.value}"


def test_the_network_is_needed_for_hub_models_alone():
    local = ["models/reward", "rewards.examples:brevity"]
    assert not needs_hub([]) and not needs_hub(local) and needs_hub([*local, f"owner/name@{COMMIT}"])


def test_an_entry_is_read_without_heavy_libraries():
    code = "import sys, rlhf_lib.scoring.source; print({'torch', 'transformers', 'trl'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
