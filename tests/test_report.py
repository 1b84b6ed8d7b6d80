import copy
import subprocess
import sys

import pytest
from conftest import ROOT

from rlhf_lib import report
from rlhf_lib.tracking import write_curve, write_json

HEADLINE = {
    **{"reward": 0.0, "reward_se": 0.02, "win_rate": 0.5, "win_rate_se": 0.0, "kl": 0.0, "kl_se": 0.0},
    **{"length": 21.04, "length_se": 0.1, "eos_rate": 0.996, "distinct_2": 0.25},
}
GOLD = {
    "gold": 0.61,
    "gold_se": 0.011,
    "gold_gain": 0.0,
    "gold_gain_se": 0.0,
    "gold_by_format": {"fact": 0.75, "list": 0.41},
}
REWARD = {"accuracy": 0.8125, "pairs": 160, "gold_accuracy": 0.875, "gold_pairs": 150}


def evaluations(gold=True):
    mode = {**HEADLINE, **(GOLD if gold else {})}
    made = {p: {"greedy": dict(mode), "t0_7": dict(mode), "t1": dict(mode)} for p in ("sft", "ppo", "dpo")}
    made = copy.deepcopy(made)
    made["ppo"]["t1"] |= {"reward": 1.234, "reward_se": 0.031, "win_rate": 0.871, "kl": 7.77}
    made["dpo"]["t0_7"] |= {"reward": -0.456, "kl": 5.55}
    if gold:
        made["ppo"]["t1"] |= {"gold_gain": 0.1234, "gold_gain_se": 0.0056}
    for policy, accuracy in (("sft", 0.5), ("ppo", 0.642), ("dpo", 0.713)):
        made[policy]["preference_accuracy"] = accuracy
    return made


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def row_of(table, *first):
    (line,) = [line for line in table.splitlines() if cells(line)[: len(first)] == list(first)]
    return cells(line)


def test_a_table_lines_up():
    lines = report.markdown_table(["a", "header"], [["long cell", "1"], ["±", ""]]).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4
    columns = [[i for i, char in enumerate(line) if char == "|"] for line in lines]
    assert all(places == columns[0] for places in columns)
    assert set(lines[1]) <= set("|- ") and cells(lines[2]) == ["long cell", "1"]


def test_modes_go_from_hot_to_greedy():
    sft = {"preference_accuracy": 0.5, "greedy": {}, "t0_7": {}, "t1": {}, "t1_25": {}, "t0_05": {}}
    assert report.modes({"sft": sft}) == ["t1_25", "t1", "t0_7", "t0_05", "greedy"]
    assert [report.mode_label(mode) for mode in ("t1", "t0_7", "greedy")] == ["T=1", "T=0.7", "greedy"]


def test_the_table_holds_the_numbers_of_each_policy_and_mode():
    table = report.policy_table(evaluations())
    assert len(table.splitlines()) == 2 + 3 * 3
    ppo = ["PPO", "T=1", "1.23 ± 0.03", "0.87 ± 0.00", "7.77 ± 0.00", "21.0", "0.996", "0.25"]
    assert row_of(table, "PPO", "T=1") == [*ppo, "0.610 ± 0.011", "+0.123 ± 0.006"]
    assert row_of(table, "DPO", "T=0.7")[2:5] == ["-0.46 ± 0.02", "0.50 ± 0.00", "5.55 ± 0.00"]
    assert row_of(table, "SFT", "greedy")[2] == "0.00 ± 0.02"


def test_the_page_holds_everything():
    page = report.page(evaluations(), REWARD)
    assert report.policy_table(evaluations()) in page
    for words in ("81.2% of 160 pairs", "87.5% of 150", "PPO 0.642", "DPO 0.713", "policies.png", "curves.png"):
        assert words in page
    assert row_of(page, "fact")[1:] == ["0.75"] * 9 and row_of(page, "list")[1:] == ["0.41"] * 9


def test_the_page_says_nothing_of_a_true_quality_that_is_not_known():
    page = report.page(evaluations(gold=False), {"accuracy": 0.8125, "pairs": 160})
    assert "rue quality" not in page and "81.2% of 160 pairs" in page
    assert "gain" not in report.policy_table(evaluations(gold=False))


def write_curves():
    for stage in {stage for _, stage, *_ in report.CURVES}:
        columns = sorted({key for _, name, *keys in report.CURVES if name == stage for key in keys})
        write_curve(f"metrics/{stage}/train.tsv", [{"step": s, **dict.fromkeys(columns, 1 / s)} for s in (10, 20)])
        write_curve(f"metrics/{stage}/eval.tsv", [{"step": 20, **dict.fromkeys(columns, 0.5)}])


def test_a_curve_leaves_out_rows_without_the_value(tmp_path):
    write_curve(
        tmp_path / "x.tsv", [{"step": 1, "loss": 3.0}, {"step": 2, "grad_norm": 1.0}, {"step": 3, "loss": 1e-5}]
    )
    assert report.read_curve(tmp_path / "x.tsv", "step", "loss") == ([1.0, 3.0], [3.0, 1e-5])


@pytest.mark.parametrize("gold", [True, False])
def test_pictures_are_pngs_and_the_same_when_drawn_again(tmp_path, monkeypatch, gold):
    monkeypatch.chdir(tmp_path)
    write_curves()
    for name in ("first", "second"):
        report.draw_curves(f"{name}-curves.png")
        report.draw_policies(evaluations(gold), f"{name}-policies.png")
    for picture in ("curves.png", "policies.png"):
        content = (tmp_path / f"first-{picture}").read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) > 5000
        assert content == (tmp_path / f"second-{picture}").read_bytes()


def test_other_numbers_make_another_picture(tmp_path):
    changed = evaluations()
    changed["ppo"]["t1"]["reward"] = 2.0
    report.draw_policies(evaluations(), tmp_path / "a.png")
    report.draw_policies(changed, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def run_report(directory, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "stages.report", *arguments],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(directory)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def write_metrics(directory):
    for policy, measured in evaluations().items():
        write_json(directory / f"metrics/eval/{policy}.json", measured)
    write_json(directory / "metrics/reward/summary.json", {"reward": REWARD})


def test_show_without_metrics_says_what_to_run(tmp_path):
    done = run_report(tmp_path, "--show")
    assert done.returncode != 0 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "metrics/eval/sft.json" in done.stderr and "dvc repro" in done.stderr


def test_show_prints_the_table_and_writes_nothing(tmp_path):
    write_metrics(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = run_report(tmp_path, "--show")
    assert done.returncode == 0 and done.stderr == "" and report.policy_table(evaluations()) in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_the_stage_writes_the_page_and_its_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_metrics(tmp_path)
    write_curves()
    done = run_report(tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "report").iterdir()) == ["curves.png", "policies.png", "report.md"]
    assert (tmp_path / "report/report.md").read_text(encoding="utf-8") == report.page(evaluations(), REWARD)
