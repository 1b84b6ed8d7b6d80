"""Outs of a run with other params are told from those of params.yaml as it is."""

import shutil
from pathlib import Path

import pytest
import yaml
from project import DEMO

from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.data import made

ROWS, TOKENIZER = "data/splits/sft_train.jsonl", "models/base"


@pytest.fixture
def lock(tmp_path, monkeypatch):
    """The stages of a dvc.lock as a run of the demo leaves it, in the folder where the test runs; to be changed by
    `write`."""
    shutil.copy(DEMO, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    params = load_yaml(Path("params.yaml"))

    def stage(section, deps, out):
        deps = [{"path": path, "md5": md5} for path, md5 in deps.items()]
        recorded = {"params.yaml": {section: params[section]}}
        return {"deps": deps, "params": recorded, "outs": [{"path": out, "md5": f"{out} as it was"}]}

    stages = {
        "load": stage("load", {"rlhf_lib/data/load": "code"}, "data/raw"),
        "prepare": stage("prepare", {"data/raw": "data/raw as it was"}, ROWS),
        "base": stage("base", {ROWS: f"{ROWS} as it was"}, TOKENIZER),
    }
    write(stages)
    return stages


def write(stages):
    Path("dvc.lock").write_text(yaml.safe_dump({"stages": stages}))


def change(section, **values):
    params = load_yaml(Path("params.yaml"))
    params[section] |= values
    Path("params.yaml").write_text(yaml.safe_dump(params))


def test_what_the_params_made_is_theirs(lock):
    assert not made.otherwise(ROWS) and not made.otherwise(TOKENIZER)


def test_other_sources_make_other_rows_and_another_tokenizer(lock):
    change("load", sources=[{"reader": "ultrafeedback"}])
    assert made.otherwise("data/raw") and made.otherwise(ROWS) and made.otherwise(TOKENIZER)


def test_a_later_stage_makes_no_rows(lock):
    change("base", vocab_size=4096)
    assert made.otherwise(TOKENIZER) and not made.otherwise(ROWS)


def test_params_that_do_not_matter_are_passed_over(lock):
    change("base", n_embd=192, n_layer=4)
    assert made.otherwise(TOKENIZER) and made.otherwise(TOKENIZER, but=["base.n_embd"])
    assert not made.otherwise(TOKENIZER, but=["base.n_embd", "base.n_layer"])


def test_what_was_made_from_rows_that_are_made_anew_is_of_the_run_before(lock):
    lock["prepare"]["outs"][0]["md5"] = "other rows"
    write(lock)
    assert made.otherwise(TOKENIZER) and not made.otherwise(ROWS)


def test_of_what_is_not_recorded_nothing_is_said(lock):
    change("load", seed=1)
    assert not made.otherwise("models/mine")
    Path("dvc.lock").unlink()
    assert not made.otherwise(ROWS)
