"""The report of a run in which stages were left out, or of few test prompts."""

from __future__ import annotations

import pytest
from report_project import make_project, run_report

from rlhf_lib.common.files import write_curve, write_json
from rlhf_lib.common.rows import read_jsonl, write_jsonl
from rlhf_lib.report import inputs, tables
from rlhf_lib.report.verdict import verdict

WHY = "no source gives preferences"


def leave_out(root, *stages):
    for stage in stages:
        write_json(root / f"metrics/{stage}/summary.json", {"left_out": WHY})
        for part in ("train", "eval"):
            write_curve(root / f"metrics/{stage}/{part}.tsv", [], ["step", "loss"])
        if stage in ("ppo", "dpo"):
            write_jsonl(root / f"data/samples/{stage}.jsonl", [])
            write_json(root / f"metrics/eval/{stage}.json", {"left_out": f"no answers of {stage}, which was left out"})
        else:
            write_jsonl(root / f"data/scores/{stage}.jsonl", [])


@pytest.fixture
def sft_alone(tmp_path, monkeypatch):
    """SFT's samples, which nothing scored; all else was left out."""
    root = make_project(tmp_path, prompts=7, gold=False, policies=("sft",))
    leave_out(root, "ppo", "dpo", "reward", "judge")
    write_json(root / "metrics/eval/best_of_n.json", {"left_out": "no answers of best_of_n, which was left out"})
    write_curve(root / "metrics/overoptimisation.tsv", [], ["rollout", "judge"])
    samples = read_jsonl(root / "data/samples/sft.jsonl")
    for sample in samples:
        del sample["reward"], sample["judge"]
    write_jsonl(root / "data/samples/sft.jsonl", samples)
    numbers = {"kl": 0.0, "kl_se": 0.0, "length": 12.0, "bleu": 21.5, "bleu_se": 1.25, "rougeL": 0.5, "rougeL_se": 0.1}
    of_dataset = {"perplexity": 3.5, "perplexity_se": 0.25, "pairs": 0}
    write_json(root / "metrics/eval/sft.json", {"t1": numbers, "t0_7": {}, "greedy": {}, "dataset": of_dataset})
    monkeypatch.chdir(root)
    return root


def test_of_sft_alone_the_terminal_shows_what_there_is(sft_alone):
    done = run_report(sft_alone, "--show")
    assert done.returncode == 0, done.stderr
    header, _, row, *_ = done.stdout.splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        *("policy", "sampling", "KL to SFT", "tokens", "BLEU", "ROUGE-L")
    ]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == [
        *("SFT", "T=1", "0.00 ± 0.00", "12.0", "21.5 ± 1.2", "0.500 ± 0.100")
    ]
    assert "Perplexity of the dataset's answers under SFT: 3.500 ± 0.250\n" in done.stdout
    assert "n = 7 test prompts: too few to tell.\n" in done.stdout
    assert f"No verdict: PPO and DPO were left out: {WHY}.\n" in done.stdout


def test_the_page_says_what_was_left_out(sft_alone):
    done = run_report(sft_alone)
    assert done.returncode == 0, done.stderr
    page = (sft_alone / "report/index.html").read_text()
    for what in ("PPO", "DPO", "Best of n", "The judge on PPO&#39;s rollouts", "reward model", "judge"):
        assert f'<p class="empty">{what}: left out: {WHY}.</p>' in page
    assert "not run yet" not in page
    assert page.count('<p class="note">n = 7 test prompts: too few to tell.</p>') >= 2


def test_one_policy_that_was_left_out(tmp_path, monkeypatch):
    leave_out(make_project(tmp_path, policies=("sft", "dpo")), "ppo")
    monkeypatch.chdir(tmp_path)
    told = verdict(inputs.load())
    assert told.headline.startswith("DPO did better than SFT: ")
    assert told.headline.endswith(f"paired by prompt. PPO was left out: {WHY}.")


def test_few_prompts_stand_behind_each_comparison(tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path, prompts=29))
    told, note = verdict(inputs.load()), "(n = 29: too few to tell)"
    assert told.headline.startswith("No clear difference between PPO and DPO: ")
    assert told.headline.endswith(f"paired by prompt {note}.")
    assert [note in line for line in told.details] == [True, True, False, False, True]
    assert tables.test_note(inputs.load()) == "n = 29 test prompts: too few to tell."


def test_thirty_prompts_are_enough(tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path, prompts=30))
    found = inputs.load()
    assert verdict(found).headline.startswith("PPO did better than DPO: ")
    assert "too few" not in " ".join([verdict(found).headline, *verdict(found).details, tables.test_note(found)])


def test_validation_of_few_prompts():
    splits = {"sft_train": 3, "sft_validation": 29, "judge_validation": 30, "reward_validation": 0, "test": 2}
    data = {"splits": {name: {"prompts": count} for name, count in splits.items()}}
    assert tables.validation_note(data) == "sft_validation n = 29: too few to tell."
    assert tables.validation_note({}) == ""


def test_of_a_single_prompt_nothing_is_clear(tmp_path, monkeypatch):
    monkeypatch.chdir(make_project(tmp_path, prompts=1))
    told = verdict(inputs.load())
    assert told.headline.startswith("No clear difference between PPO and DPO: ")
    beside = next(line for line in told.details if line.startswith("Against best-of-n"))
    assert "above it" not in beside and "below it" not in beside and "±" not in beside
