"""The report's numbers and words: tables, the verdict, over-optimisation, the terminal table, the stage."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from project import DEMO
from report_project import make_project, run_report

from rlhf_lib.common.files import write_json
from rlhf_lib.common.rows import read_jsonl
from rlhf_lib.report import columns, inputs, scorer_figures, tables
from rlhf_lib.report.verdict import comparison_metrics, verdict


def row_of(table, name, group=0):
    (row,) = [row for row in table.groups[group][1] if row.name == name]
    return {column.key: str(cell) for column, cell in zip(table.columns, row.cells, strict=True)}


# ---- tables


def test_the_table_holds_the_numbers_of_the_files(load):
    found = load()
    table = tables.policy_table(found, columns.QUALITY + columns.TEXT)
    assert [title for title, _ in table.groups] == ["T=1", "T=0.7", "greedy", "dataset"]
    for group, mode in enumerate(("t1", "t0_7", "greedy")):
        for policy in ("sft", "ppo", "dpo"):
            measured = json.loads(Path(f"metrics/eval/{policy}.json").read_text())
            cells = row_of(table, policy.upper(), group)
            for column in columns.QUALITY + columns.TEXT:
                value, se = measured[mode][column.key], measured[mode][f"{column.key}_se"]
                assert float(cells[column.key].split(" ± ")[0].replace("−", "-")) == pytest.approx(
                    value, abs=0.51 * 10**-column.digits
                )
                assert float(cells[column.key].split(" ± ")[1]) == pytest.approx(se, abs=0.51 * 10**-column.digits)


def test_best_of_n_and_the_chosen_answers_stand_below_the_headline_mode(load):
    found = load()
    table = tables.policy_table(found, columns.QUALITY)
    names = [row.name for row in table.groups[0][1]]
    assert names == ["SFT", "PPO", "DPO", "best of 2", "best of 4", "best of 8"]
    best = row_of(table, "best of 4")
    assert best["kl"] == f"{math.log(4) - 0.75:.2f}" and best["win_rate_chosen"] == "–"
    chosen = [s for s in read_jsonl("data/samples/sft.jsonl") if s["mode"] == "dataset" and s["chosen"]]
    mean = sum(s["gold"] for s in chosen) / len(chosen)
    assert row_of(table, "chosen", 3)["gold"].startswith(f"{mean:.3f} ± ")


def test_a_column_without_numbers_is_left_out(load):
    keys = {column.key for column in tables.policy_table(load(gold=False), columns.QUALITY).columns}
    assert "judge" in keys and not keys & {"gold", "gold_gain"}


def test_a_bar_in_a_name_ends_no_cell():
    told = tables.markdown_table(["name", "n"], [["a|b", "1"], ["plain", "20"]])
    assert told.splitlines() == ["| name  | n  |", "| ----- | -- |", r"| a\|b  | 1  |", "| plain | 20 |"]


def test_other_tables(load):
    found = load()
    assert row_of(tables.format_table(found), "PPO")["word"] == f"{found.measured('ppo')['gold_by_format']['word']:.2f}"
    scorers = tables.scorer_table(found)
    assert row_of(scorers, "judge")["accuracy"] == "0.760 ± 0.012" and row_of(scorers, "judge")["pairs"] == "1,330"
    assert row_of(tables.source_table(found), "demo/lists") == {"reward": "0.800", "judge": "0.740", "pairs": "300"}
    by_llm = row_of(tables.llm_judge_table(found), "PPO against SFT")
    assert (by_llm["win_rate"], by_llm["lc_win_rate"]) == ("0.610 ± 0.040", "0.560 ± 0.050")
    assert row_of(tables.split_table(found.data), "test")["rows"] == "348"
    assert ("dropped rows", "duplicate prompt", 98) in tables.dropped(found.data)
    assert row_of(tables.dataset_table(found), "DPO")["preference_accuracy"] == "0.700 ± 0.030"


def test_differences_in_the_table_are_those_of_the_metrics(load):
    found = load()
    metrics = comparison_metrics(found)
    assert [*metrics] == ["t1", "t0_7", "greedy"]
    numbers = metrics["t1"]["ppo_minus_dpo"]
    assert {"gold", "gold_se", "judge", "reward", "kl", "length", "length_se"} <= numbers.keys()
    means = {p: found.measured(p)["gold"] for p in ("ppo", "dpo")}
    assert numbers["gold"] == pytest.approx(means["ppo"] - means["dpo"], abs=1e-5)
    # paired by prompt: the policies share most of what differs between prompts
    assert numbers["gold_se"] < math.hypot(found.measured("ppo")["gold_se"], found.measured("dpo")["gold_se"]) - 0.001
    table = tables.difference_table(found)
    assert row_of(table, "T=1")["gold"] == f"{numbers['gold']:+.3f} ± {numbers['gold_se']:.3f}"
    assert table.rows[0].cells[0].clear


def test_ppos_wins_over_dpo_stand_beside_those_at_equal_length(load):
    found = load()
    numbers = comparison_metrics(found)["greedy"]["ppo_over_dpo"]
    theirs = {s["id"]: s for s in found.drawn("dpo", "greedy")}
    won = [s["judge"] > theirs[s["id"]]["judge"] for s in found.drawn("ppo", "greedy")]
    assert numbers["judge_win_rate"] == pytest.approx(sum(won) / len(won))
    # the judge of these made-up answers does not look at their length
    assert numbers["judge_lc_win_rate"] == pytest.approx(numbers["judge_win_rate"], abs=0.03)
    cells = row_of(tables.difference_table(found), "greedy")
    assert cells["judge_lc_win_rate"] == f"{numbers['judge_lc_win_rate']:.3f} ± {numbers['judge_lc_win_rate_se']:.3f}"


def test_one_policy_has_no_comparison(load):
    assert comparison_metrics(load(policies=("sft", "dpo"))) == {}


def test_the_terminal_table_fits_and_lines_up(load):
    lines = tables.text_table(load()).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines[0]) <= 120
    assert len(lines) == 2 + 3 * 3 + 3 + 1
    columns = [[i for i, char in enumerate(line) if char == "|"] for line in lines]
    assert all(places == columns[0] for places in columns)
    assert lines[2].startswith("| SFT       | T=1 ")


# ---- inputs and the stage


def test_an_empty_folder_has_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(DEMO, "params.yaml")
    found = inputs.load()
    assert found.policies == [] and found.chosen() == [] and found.hashes == []
    assert verdict(found).headline.startswith("No verdict yet")


def test_hashes_are_those_of_data_and_models(load):
    assert load().hashes == [
        ("ppo", "models/ppo", "fedcba9876543210fedcba9876543210.dir"),
        ("prepare", "data/splits/test.jsonl", "0123456789abcdef0123456789abcdef"),
    ]


def test_an_evaluation_at_other_temperatures_is_an_error_of_one_line(load, tmp_path):
    found = load()
    write_json(tmp_path / "metrics/eval/dpo.json", {"t0_3": found.measured("dpo")})
    with pytest.raises(SystemExit, match=r"^metrics/eval/dpo.json: .*dvc repro measure@dpo$"):
        inputs.load()


def test_a_broken_file_is_an_error_of_one_line(load, tmp_path):
    load()
    (tmp_path / "metrics/eval/ppo.json").write_text("{")
    with pytest.raises(SystemExit, match=r"^metrics/eval/ppo.json: not JSON"):
        inputs.load()


def test_show_without_metrics_says_what_to_run(tmp_path):
    shutil.copy(DEMO, tmp_path / "params.yaml")
    done = run_report(tmp_path, "--show")
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "metrics/eval/sft.json" in done.stderr and "dvc repro" in done.stderr


def test_show_prints_the_table_and_the_verdict_and_writes_nothing(tmp_path, monkeypatch):
    make_project(tmp_path, policies=("sft", "ppo"))
    before = sorted(tmp_path.rglob("*"))
    done = run_report(tmp_path, "--show")
    assert done.returncode == 0 and done.stderr == "" and sorted(tmp_path.rglob("*")) == before
    assert max(map(len, done.stdout.splitlines())) <= 120
    monkeypatch.chdir(tmp_path)
    assert tables.text_table(inputs.load()) in done.stdout and "PPO did better than SFT" in done.stdout


def test_other_arguments_are_refused(tmp_path):
    done = run_report(tmp_path, "--help")
    assert done.returncode == 1 and "usage: python -m stages.report [--show | --open]" in done.stderr


# ---- the pictures of the reward model and the judge


def test_whiskers_of_pairs_are_the_errors_over_prompts(load):
    (panel,) = [panel for panel in scorer_figures.scorers(load()) if panel.name == "scorers-reliability"]
    axes = Figure().subplots()
    panel.draw(axes)
    whiskers = [bars for drawn in axes.containers for bars in drawn[2][0].get_segments()]
    assert len(whiskers) == 20 and [high[1] - low[1] for low, high in whiskers] == pytest.approx([2 * 0.02] * 20)


def drawn_by_score(found, pairs):
    """(x, y, upper end of the whisker) of each point, of answers with these scores and rewards."""
    rows = [{"score": score, "reward": reward} for score, reward in pairs]
    panels = scorer_figures.scorers(replace(found, reward_models={}, scores={"reward": rows, "judge": []}))
    axes = Figure().subplots()
    for panel in panels:
        panel.draw(axes)
    return [
        (*point, float(bars[1][1]))
        for drawn in axes.containers
        for point, bars in zip(drawn[0].get_xydata().tolist(), drawn[2][0].get_segments(), strict=True)
    ]


def test_rewards_by_the_scores_of_the_data_by_hand(load):
    found, unit = load(), (20 / 3) ** -0.5  # the rewards 0, 2, 4, 6 have a mean of 3 and a variance of 20 / 3
    points = drawn_by_score(found, [(2.0, 6.0), (1.0, 2.0), (None, 9.0), (1.0, 0.0), (3.0, None), (2.0, 4.0)])
    assert points == [pytest.approx((1, -2 * unit, -unit)), pytest.approx((2, 2 * unit, 3 * unit))]
    assert drawn_by_score(found, [(1.0, 0.5), (2.0, 0.5)]) == [(1, 0, 0), (2, 0, 0)]  # no spread to measure by
    assert drawn_by_score(found, [(1.0, 0.5)]) == []


def test_answers_are_grouped_by_like_scores(load):
    found = load()
    assert [x for x, *_ in drawn_by_score(found, [(i, 0.1 * i) for i in range(20)])] == [2 * i + 0.5 for i in range(10)]
    one_score = [(0, 0.0)] * 17 + [(1, 1.0), (2, 1.0), (3, 1.0)]
    assert [x for x, *_ in drawn_by_score(found, one_score)] == [0, 1.5, 3]  # a score is in one group


def test_one_scorer_alone_has_its_pictures(load):
    found = load()
    names = [panel.name for panel in scorer_figures.scorers(found)]
    bare = {key: {} if key == "judge" else summary for key, summary in found.reward_models.items()}
    alone = replace(found, reward_models=bare, scores={**found.scores, "judge": []})
    assert [panel.name for panel in scorer_figures.scorers(alone)] == names and len(names) == 3
