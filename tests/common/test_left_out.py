"""Stages that leave themselves out: what they write in place of their outs, and how others tell."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from project import ROOT

from rlhf_lib.common import few, left_out, paths
from rlhf_lib.common.rows import write_jsonl

WHY = "no source gives preferences"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return tmp_path


def stages():
    """Every stage of dvc.yaml by its full name."""
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        yield from (f"{name}@{item}" for item in stage["foreach"]) if "foreach" in stage else (name,)


def ended(call, *arguments, **options):
    """That the call ends the process well."""
    with pytest.raises(SystemExit) as end:
        call(*arguments, **options)
    return end.value.code


@pytest.mark.parametrize("stage", [name for name in stages() if name not in ("load", "prepare", "report")])
def test_every_out_of_a_stage_is_written_and_recognised(stage, capsys):
    assert ended(left_out.leave_out, stage, WHY) == 0
    assert capsys.readouterr().out == f"{stage}: left out: {WHY}\n"
    declared = [path for path, _ in left_out.declared_outs(stage)]
    assert declared and all("$" not in path and Path(path).exists() for path in declared)
    for path in declared:
        if path.endswith(".tsv"):
            header = Path(path).read_text()
            assert header.count("\n") == 1 and header.count("\t") == 1
        else:
            no_rows = path.endswith(".jsonl") and stage != "negatives"
            of_samples = f"no answers of {Path(path).stem}, which was left out"
            told = of_samples if Path(path).parent.name == "samples" else f"{path} has no rows"
            assert left_out.reason(path) == (told if no_rows else WHY)


def test_the_header_of_a_curve_has_what_dvc_plots():
    ended(left_out.leave_out, "dpo", WHY)
    assert Path("metrics/dpo/train.tsv").read_text() == "step\trewards/margins\n"
    assert json.loads(Path("metrics/dpo/summary.json").read_text()) == {"left_out": WHY}
    assert Path("models/dpo/left_out.txt").read_text() == f"{WHY}\n"


def test_a_model_that_an_earlier_run_left_goes():
    Path("models/dpo").mkdir(parents=True)
    Path("models/dpo/config.json").write_text("{}")
    ended(left_out.leave_out, "dpo", WHY)
    assert [file.name for file in Path("models/dpo").iterdir()] == ["left_out.txt"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("sft_train", "no source gives answers to learn from"),
        ("reward_train", WHY),
        ("groups_validation", WHY),
        ("preference_train", WHY),
        ("judge_train", WHY),
        ("prompts_train", "no source gives prompts for PPO"),
        ("test", "data/splits/test.jsonl has no rows"),
    ],
)
def test_why_a_split_is_empty(name, why):
    write_jsonl(paths.split(name), [])
    assert left_out.reason(paths.split(name)) == why
    write_jsonl(paths.split(name), [{"a": 1}])
    assert left_out.reason(paths.split(name)) is None


def test_what_is_there_has_no_reason():
    Path("models/sft").mkdir(parents=True)
    assert left_out.reason("models/sft") is None
    Path("models/sft/config.json").write_text("{}")
    Path("models/sft/left_out.txt").write_text("once")
    Path("broken.json").write_text("{")
    Path("list.json").write_text("[]")
    for path in ("models/sft", "models/none", "broken.json", "list.json", "none.json"):
        assert left_out.reason(path) is None


def test_a_stage_goes_on_where_it_has_what_it_needs(capsys):
    write_jsonl("some.jsonl", [{}])
    write_jsonl("none.jsonl", [])
    left_out.unless_there("dpo", "some.jsonl")
    left_out.unless_there("dpo")
    left_out.unless_there("negatives", "none.jsonl", "some.jsonl", enough=any)
    assert capsys.readouterr().out == ""
    assert ended(left_out.unless_there, "negatives", "some.jsonl", "none.jsonl") == 0
    assert capsys.readouterr().out == "negatives: left out: none.jsonl has no rows\n"


def test_sft_is_the_base_model_where_it_is_left_out(capsys):
    Path(paths.BASE).mkdir(parents=True)
    Path(paths.BASE, "config.json").write_text("{}")
    write_jsonl(paths.split("sft_train"), [])
    assert ended(left_out.unless_there, "sft", paths.split("sft_train"), copies={paths.SFT: paths.BASE}) == 0
    assert Path(paths.SFT, "config.json").is_file() and left_out.reason(paths.SFT) is None
    told = "sft: left out: no source gives answers to learn from; models/sft is a copy of models/base\n"
    assert capsys.readouterr().out == told


def test_of_several_processes_the_first_writes(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert ended(left_out.leave_out, "dpo", WHY) == 0
    assert capsys.readouterr().out == "" and not Path("models").exists()


def test_few_rows_are_told(capsys):
    assert (few.few(7), few.few(29), few.few(30)) == (" (n = 7: too few to tell)", " (n = 29: too few to tell)", "")
    rows = [{"prompt": [{"role": "user", "content": f"Question {number // 2}?"}]} for number in range(60)]
    few.tell("dpo", validation=rows[:4], test=[])
    few.tell("dpo", validation=rows)
    assert capsys.readouterr().out == "dpo: validation (n = 2: too few to tell)\n"
