"""The table of the experiments."""

import os
import subprocess

import pytest
from project import ROOT

from rlhf_lib.experiments import __main__ as experiments
from rlhf_lib.experiments.__main__ import number, read, table

BUSY_ONCE = """#!/bin/sh
if [ ! -e "$0.tried" ]; then
    touch "$0.tried"
    echo "ERROR: Unable to acquire lock" >&2
    exit 1
fi
echo "Experiment,rev,typ,policy"
"""


def row(**cells):
    common = {"ppo.kl_coef": "0.2", "ppo.seed": "0", "ppo.learning_rate": "0.0003", "dpo.beta": "0.2", "ppo.kl": "0.9"}
    return {
        "Experiment": "",
        "rev": "main",
        "typ": "baseline",
        "policy": "ppo",
        "eval.reward": "0.8",
        **common,
        **cells,
    }


def experiment(name, **cells):
    return row(**{"Experiment": name, "rev": name, "typ": "branch_commit", **cells})


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_params_without_a_column_are_listed_and_metrics_are_not():
    said = table([row(), experiment("slow", **{"ppo.learning_rate": "0.0001", "ppo.kl_coef": "0.8", "ppo.kl": "0.4"})])
    assert said.splitlines()[-1] == "slow: ppo.learning_rate=0.0001"


def test_a_coefficient_of_another_method_than_the_policys_is_listed():
    said = table([row(), experiment("mild", **{"dpo.beta": "0.6", "ppo.kl_coef": "0.8"})])
    assert said.splitlines()[-1] == "mild: dpo.beta=0.6"


@pytest.mark.parametrize("value", ["nan", "inf", "", "many"])
def test_what_is_no_number_is_none(value):
    assert number(row(**{"eval.kl": value}), "eval.kl") is None


def test_a_column_is_known_also_where_another_file_has_its_name(tmp_path):
    header = (
        "Experiment,rev,typ,params.yaml:policy,mine.json:policy,params.yaml:ppo.kl_coef,metrics/policy.json:eval.kl"
    )
    (tmp_path / "table.csv").write_text(f"{header},mine.json:eval.kl\na,a1,branch_commit,ppo,0.1,0.2,0.75,5\n")
    rows = read(str(tmp_path / "table.csv"))
    found = dict(zip(*(line.split("|") for line in table(rows).splitlines()[::2]), strict=True))
    cells = {name.strip(): cell.strip() for name, cell in found.items()}
    assert (cells["policy"], cells["kl_coef"], cells["kl"]) == ("ppo", "0.2", "0.750")


def test_an_experiment_is_held_against_the_commit_it_starts_from():
    first, second = row(), row(rev="older", **{"ppo.learning_rate": "0.1"})
    said = table([first, experiment("a"), second, experiment("b", **{"ppo.learning_rate": "0.1"})])
    assert "learning_rate" not in said


def test_the_table_fits_a_terminal():
    many = {"ppo.learning_rate": "0.0001", "dpo.beta": "0.5", "policy": "ppo"}
    said = table([row(), experiment("a-long-name-of-an-experiment", **many)])
    assert max(map(len, said.splitlines())) <= 120


def git(*words):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", *identity, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_what_is_waited_for_is_told_and_what_dvc_does_not_list(tmp_path, monkeypatch, capsys):
    (tmp_path / "dvc").write_text(BUSY_ONCE)
    (tmp_path / "dvc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(experiments, "PAUSE", 0.0)
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    first = git("rev-parse", "HEAD")
    for name in ("a", "b"):
        git("update-ref", f"refs/exps/{first[:2]}/{first[2:]}/{name}", "HEAD")
    git("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")
    assert read(None) == []
    reads, waits = capsys.readouterr().err.splitlines()
    assert "reads the experiments" in reads and "at work here; this waits for it" in waits
    git("commit", "-q", "--allow-empty", "-m", "second")
    read(None)
    *_, others = capsys.readouterr().err.splitlines()
    assert others.startswith("2 experiments start from other commits (1) ") and f"--rev {first[:9]} |" in others
