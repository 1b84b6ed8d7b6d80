"""The benchmark of the kinds of reward model."""

from pathlib import Path

from project import DEMO, ROOT

from benchmarks import reward_kinds
from rlhf_lib.common.schema import check
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.reward.params import RewardParams


def test_the_kinds_of_the_benchmark_are_params():
    section = load_yaml(DEMO)["reward"]
    for kind in reward_kinds.KINDS.values():
        check(RewardParams, {**section, **reward_kinds.PLAIN, **kind}, "reward")


def test_the_scratch_folder_has_what_stage_reward_reads():
    deps = [Path(dep) for dep in load_yaml(ROOT / "dvc.yaml")["stages"]["reward"]["deps"]]
    there = (*reward_kinds.CODE, *reward_kinds.INPUTS)
    assert [dep for dep in deps if not any(dep.is_relative_to(path) for path in there)] == []


def test_the_table_has_a_row_for_each_kind():
    measured = {
        "accuracy": 0.8,
        "accuracy_se": 0.01,
        "gold_accuracy": 0.9,
        "ece": 0.02,
        "fitted_mse": 0.03,
        "seconds": 7.6,
    }
    pairs, groups = {**measured, "train_pairs": 5}, {**measured, "train_groups": 4, "ece": None, "mse": 0.5}
    rows = reward_kinds.table({"bradley_terry": pairs, "mse": groups}).splitlines()[2:]
    assert rows == [
        "| bradley_terry | 5 | 0.800 ± 0.010 | 0.900 | 0.020 | – | 0.030 | – | 8 |",
        "| mse | 4 | 0.800 ± 0.010 | 0.900 | – | 0.500 | 0.030 | – | 8 |",
    ]
