"""The table of the experiments."""

import pytest
from project import ROOT

from rlhf_lib.experiments.__main__ import table


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


def test_an_experiment_is_held_against_the_commit_it_starts_from():
    first, second = row(), row(rev="older", **{"ppo.learning_rate": "0.1"})
    said = table([first, experiment("a"), second, experiment("b", **{"ppo.learning_rate": "0.1"})])
    assert "learning_rate" not in said


def test_the_table_fits_a_terminal():
    many = {"ppo.learning_rate": "0.0001", "dpo.beta": "0.5", "policy": "ppo"}
    said = table([row(), experiment("a-long-name-of-an-experiment", **many)])
    assert max(map(len, said.splitlines())) <= 120
