"""REPORT_TO: which trackers it names, and what is told before anything loads."""

import subprocess
import sys

import pytest
from copied_project import ENV
from project import ROOT
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.training import report_to

KEYLESS = (
    "REPORT_TO: wandb: no API key; set WANDB_API_KEY, log in (wandb login), or set WANDB_MODE=offline, which keeps"
)


@pytest.fixture
def trackers(monkeypatch, tmp_path):
    """Every tracker is installed, but for swanlab; a home without keys, and no settings of wandb."""
    for name in [name for name in report_to.PACKAGES if name != "swanlab"]:
        monkeypatch.setitem(report_to.PACKAGES, name, ("no_such_package", "json"))
    monkeypatch.setitem(report_to.PACKAGES, "swanlab", ("no_such_package",))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_CONFIG_DIR", "NETRC", "TRACKIO_SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return lambda value: monkeypatch.setenv("REPORT_TO", value) or list(report_to.faults())


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("", []),
        ("none", []),
        (" , ", []),
        ("tensorboard", ["tensorboard"]),
        (" wandb, tensorboard ,wandb", ["wandb", "tensorboard"]),
    ],
)
def test_it_names_trackers_with_commas_between(trackers, value, names):
    trackers(value)
    assert report_to.chosen() == names


def test_it_need_not_be_set(monkeypatch):
    monkeypatch.delenv("REPORT_TO", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)  # as it leaves it
    assert report_to.chosen() == [] and list(report_to.faults()) == []
    report_to.check()


CHECKED = "from rlhf_lib.training import report_to; report_to.check(); import rlhf_lib.sft.trainer as trainer"


def with_broken_wandb(folder, **env):
    """A process that checks REPORT_TO and imports TRL where wandb is installed and cannot be imported."""
    (folder / "wandb").mkdir()
    (folder / "wandb/__init__.py").write_text("raise AttributeError('numpy has no float_\\nany more')")
    env = {**ENV, "PYTHONPATH": f"{folder}:{ROOT}", "WANDB_MODE": "offline", **env}
    return subprocess.run([sys.executable, "-c", CHECKED], env=env, capture_output=True, text=True, timeout=120)


def test_a_broken_wandb_is_no_matter_where_it_is_not_named(tmp_path):
    done = with_broken_wandb(tmp_path, REPORT_TO="none")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_broken_wandb_that_is_named_ends_in_one_line(tmp_path):
    done = with_broken_wandb(tmp_path, REPORT_TO="wandb")
    assert (done.returncode, done.stderr) == (
        1,
        "REPORT_TO: wandb: cannot be imported (AttributeError: numpy has no float_ any more); install it again, or "
        "take it out\n",
    )


def test_the_trackers_are_those_of_transformers():
    assert sorted(report_to.PACKAGES) == sorted(INTEGRATION_TO_CALLBACK)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("Wandb", "'Wandb' is no tracker that transformers knows; did you mean wandb?"),
        ("xyzzy", "'xyzzy' is no tracker that transformers knows; known: azure_ml, clearml, "),
        ("swanlab", "swanlab: the package no_such_package is not installed; pip install".replace("_", "-")),
        ("all", "all: installed is not wanted: name the trackers"),
        ("dvclive", "dvclive: would write over dvc.yaml"),
    ],
)
def test_what_is_no_tracker_or_not_here_is_one_line(trackers, value, words):
    (line,) = trackers(f"tensorboard,{value}")
    assert line.startswith(f"REPORT_TO: {words}") and "\n" not in line
    with pytest.raises(ParamsError, match="^REPORT_TO: "):
        report_to.check()


def test_every_fault_is_told(trackers):
    assert [line.split(":")[1].strip() for line in trackers("swanlab,dvclive,wandb")] == ["swanlab", "dvclive", "wandb"]


def test_wandb_needs_a_key_or_to_stay_offline(trackers, monkeypatch, tmp_path):
    assert trackers("wandb")[0].startswith(KEYLESS)
    for name, value in (("WANDB_API_KEY", "k"), ("WANDB_MODE", "offline"), ("WANDB_MODE", "disabled")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert trackers("wandb") == []
    (tmp_path / ".netrc").write_text("machine example.org login user password secret\n")
    assert trackers("wandb")
    monkeypatch.setenv("WANDB_BASE_URL", "https://example.org:8080/")
    assert trackers("wandb") == []


@pytest.mark.parametrize("text", ["[default]\nmode = offline\n", "[default]\napi_key = k\n", "broken"])
def test_wandb_itself_tells_what_its_settings_lack(trackers, tmp_path, text):
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb/settings").write_text(text)
    assert trackers("wandb") == []


def test_trackio_does_not_reach_the_hub(trackers, monkeypatch):
    assert trackers("trackio") == []
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/space")
    assert "TRACKIO_SPACE_ID is set" in trackers("trackio")[0]


STAGES = ("sft", "reward", "judge", "dpo", "ppo", "kto", "rft", "rft_random", "inputs")


@pytest.mark.parametrize("module", [*(f"stages.{stage}" for stage in STAGES), "rlhf_lib.check"])
def test_what_trains_ends_in_that_line_before_anything_loads(module):
    code = f"import runpy, sys; sys.modules['torch'] = None; runpy.run_module({module!r}, run_name='__main__')"
    env = {**ENV, "REPORT_TO": "tensorbord"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    told = [line for line in done.stderr.splitlines() if line.strip()]
    assert told == ["REPORT_TO: 'tensorbord' is no tracker that transformers knows; did you mean tensorboard?"]
    assert done.returncode == 1
