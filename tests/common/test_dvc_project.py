"""What the stages know of the project as DVC does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_lib.common import dvc_project
from rlhf_lib.common.yaml import load_yaml


def test_a_folder_has_the_hash_that_dvc_gives_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvcignore").write_text("*~\n/logs/\n")
    for name in ("config.json", "b.txt", "b/weights", "b-c", "é.txt", "left~", "logs/kept"):
        file = tmp_path / "model" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (tmp_path / "model/empty").write_text("")
    for command in (["init", "-q", "--no-scm"], ["add", "-q", "model"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True, capture_output=True)
    (out,) = load_yaml(Path("model.dvc"))["outs"]
    assert out["nfiles"] == 7
    assert dvc_project.md5("model") == out["md5"] and dvc_project.md5("model/config.json") != out["md5"]
    assert dvc_project.md5("nowhere") is None
    with pytest.raises(FileNotFoundError):
        dvc_project.file_md5("nowhere")


def test_a_stage_is_found_by_dvcs_name_for_it():
    items = {"z": {"file": "of ${split.name}", "n": 2}}
    graph = {
        "stages": {
            "one": {"cmd": "a", "deps": ["${split.name}.txt"]},
            "each": {"foreach": ["x", "y"], "do": {"cmd": "b ${item}", "outs": [{"${key}.json": {"cache": False}}]}},
            "other": {"foreach": items, "do": {"cmd": "${launch} ${key}", "deps": ["${item.file}", "${ item.n }"]}},
        }
    }
    assert dvc_project.declared("one", graph) == {"cmd": "a", "deps": ["${split.name}.txt"]}
    assert dvc_project.declared("each@x", graph) == {"cmd": "b x", "outs": [{"x.json": {"cache": False}}]}
    params = {"split": {"name": "test"}, "launch": "python"}
    assert dvc_project.declared("one", graph, params)["deps"] == ["test.txt"]
    assert dvc_project.declared("other@z", graph, params) == {"cmd": "python z", "deps": ["of test", "2"]}
    assert dvc_project.declared("none", graph) == {}


def test_a_cache_that_may_not_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    analytics = false\n[cache]\n    dir = ../../shared\n")
    assert dvc_project.cache_fault() is None, "DVC makes it"
    (tmp_path / ".dvc/config.local").write_text("[cache]\n    dir = ../own\n['remote \"s\"']\n    url = x%y\n")
    other = tmp_path / "own/files/md5/0a"
    other.mkdir(parents=True)
    assert dvc_project.cache_fault() is None
    monkeypatch.setattr(os, "access", lambda path, mode: not other.samefile(path))  # root may write anywhere
    told = dvc_project.cache_fault()
    assert told.startswith(".dvc/../own/files/md5/0a: this user may not write") and "cache.shared group" in told
