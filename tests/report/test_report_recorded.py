"""Numbers of one commit beside samples of another, as `git checkout` leaves them: no page is made of both."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from report_project import make_project, run_report

from rlhf_lib.report import recorded
from rlhf_lib.report.inputs import lock_stages


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose dvc.lock records what lies there: PPO learnt from this SFT model, DPO too."""
    root = make_project(tmp_path)
    stages = {
        "sft": {"cmd": "python", "outs": [{"path": "models/sft", "md5": "5f7.dir"}]},
        "inputs": {"cmd": "python", "deps": [{"path": "models/sft", "md5": "0"}]},
    }
    for name in ("ppo", "dpo"):
        files = [root / f"data/samples/{name}.jsonl", root / f"metrics/eval/{name}.json"]
        outs = [{"path": str(file.relative_to(root)), "md5": md5(file)} for file in files]
        stages[name] = {"cmd": "python", "deps": [{"path": "models/sft", "md5": "5f7.dir"}], "outs": outs}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize("option", ["--show", "--open"])
@pytest.mark.parametrize("name", ["metrics/eval/ppo.json", "data/samples/dpo.jsonl"])
def test_a_file_of_another_run_is_refused_and_nothing_is_written(project, option, name):
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    with (project / name).open("a") as file:
        file.write("\n")
    before[project / name] += b"\n"
    done = run_report(project, option)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"{name}: not of the run that dvc.lock records") and done.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before


def test_what_is_recorded_or_not_there_is_no_fault(project):
    (project / "data/samples/ppo.jsonl").unlink()
    stages = lock_stages()
    assert recorded.fault(stages) is None and recorded.behind(stages) == []


def test_a_stage_that_read_another_run_is_told_of(project):
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    lock["stages"]["ppo"]["deps"][0]["md5"] = "0ld.dir"
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert recorded.behind(lock_stages()) == ["ppo: made from another run's models/sft; dvc repro ppo"]
    done = run_report(project, "--show")
    assert done.returncode == 0 and done.stdout.startswith("note: ppo: made from another run's models/sft")


def test_params_that_were_edited_since_their_stages_ran_are_told_of(project):
    params = yaml.safe_load((project / "params.yaml").read_text())
    ran = {"ppo": params["ppo"], "evaluate.temperatures": params["evaluate"]["temperatures"], "gone.seed": None}
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    lock["stages"]["ppo"]["params"] = {"params.yaml": ran}
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert recorded.edited(lock_stages(), params) == []
    params["ppo"]["kl_coef"] = 9.0
    params["evaluate"]["temperatures"] = [1.0, 0.1]
    (told,) = recorded.edited(lock_stages(), params)
    assert told.startswith("evaluate.temperatures, ppo.kl_coef: not what ppo ran with")
    lock["stages"]["ppo"]["params"]["params.yaml"]["ppo"]["kl_coef"] = 9.0
    (project / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert run_report(project, "--show").stdout.startswith("note: ppo.kl_coef: not what ppo ran with")


def test_dvc_sees_to_it_itself_where_it_runs_the_stage(project):
    with (project / "data/samples/ppo.jsonl").open("a") as file:
        file.write("\n")
    assert run_report(project).returncode == 0
