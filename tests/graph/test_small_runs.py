"""The whole graph with real DVC on what users bring: answers alone, a few scored rows, a few pairs."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from copied_project import commit, copy_of_project, executed, run

from rlhf_lib.common.rows import read_jsonl, write_jsonl

VERBS, THINGS = ("paint", "clean", "store", "lift", "sell"), ("kettle", "bicycle", "lantern", "ladder")
PROMPTS = [f"How do I {verb} a {thing} at home?" for verb in VERBS for thing in THINGS]
ANSWERS = ("Take a soft cloth and go slowly", 8), ("It depends on the day", 5), ("No idea", 2)

pytestmark = pytest.mark.slow


def project(folder: Path, source: dict[str, object], **prepare: object) -> str:
    """A copy of the project that learns from one source, and what `dvc repro` printed in it."""
    copy_of_project(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["load"]["sources"] = [{"reader": "file", **source}]
    params["prepare"] |= prepare
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    commit(folder)
    return run(folder, "dvc", "repro")


def metrics(folder: Path, name: str) -> dict[str, object]:
    return json.loads((folder / "metrics" / f"{name}.json").read_text())


def shown(folder: Path, *command: str) -> str:
    return run(folder, sys.executable, "-m", *command)


def test_answers_alone_train_sft_and_the_rest_leaves_itself_out(tmp_path: Path) -> None:
    answers = [{"prompt": prompt, "completion": f"A joke about number {i}."} for i, prompt in enumerate(PROMPTS * 6)]
    for number, row in enumerate(answers):
        row["prompt"] += f" It is number {number}."
    write_jsonl(tmp_path / "puns.jsonl", answers)
    told = project(tmp_path, {"path": "puns.jsonl"})
    why = "left out: no source gives preferences"
    assert "prepare: left out: reward, judge, dpo, kto: no source gives preferences; ppo, rft, rft_random: no " in told
    assert all(f"{stage}: {why}\n" in told for stage in ("reward", "judge", "reference", "dpo", "evaluate@dpo"))
    sft = metrics(tmp_path, "eval/sft")
    headline = sft["t1"]
    assert isinstance(headline, dict)
    assert {"bleu", "rougeL", "distinct_2", "length", "kl"} <= headline.keys() and "reward" not in headline
    assert all(row["score"] is None for row in read_jsonl(tmp_path / "data/samples/sft.jsonl") if "score" in row)
    assert metrics(tmp_path, "eval/ppo").keys() == {"left_out"}
    page = (tmp_path / "report/index.html").read_text()
    assert "DPO: left out: no source gives preferences." in page and "perplexity" in page
    told = shown(tmp_path, "stages.report", "--show")
    assert "BLEU" in told and "No verdict: PPO and DPO were left out" in told
    assert executed(run(tmp_path, "dvc", "repro")) == []
    run(tmp_path, "dvc", "metrics", "show")
    run(tmp_path, "dvc", "plots", "show")
    # with preferences after all, nothing of what was left out stays
    write_jsonl(tmp_path / "pairs.jsonl", [{"prompt": p, "chosen": "Yes, gladly.", "rejected": "No."} for p in PROMPTS])
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["load"]["sources"].append({"reader": "file", "name": "pairs", "path": "pairs.jsonl"})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    assert "left out: no source" not in run(tmp_path, "dvc", "repro")
    assert metrics(tmp_path, "policy")["eval"]


def test_sixty_scored_rows_over_twenty_prompts(tmp_path: Path) -> None:
    with open(tmp_path / "answers.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Question", "Answer", "Score"])
        rows.writerows([p, f"{text}, {i}.", score] for i, p in enumerate(PROMPTS) for text, score in ANSWERS)
    columns = {"prompt": "Question", "response": "Answer", "score": "Score"}
    check_small(tmp_path, project(tmp_path, {"path": "answers.csv", "columns": columns}))


def test_sixty_pairs(tmp_path: Path) -> None:
    prompts = [f"{prompt} It is number {number}." for number, prompt in enumerate(PROMPTS * 3)]
    pairs = [{"prompt": prompt, "chosen": "Take a soft cloth.", "rejected": "No idea."} for prompt in prompts]
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    check_small(tmp_path, project(tmp_path, {"path": "pairs.jsonl"}))


def check_small(folder: Path, told: str) -> None:
    """Every stage of a method that is on ran, and every number of a few prompts says so."""
    left_out = [line for line in told.splitlines() if "left out" in line]
    assert [
        line for line in left_out if not re.search("(kto|rft|rft_random)(, which was left out| is false)$", line)
    ] == []
    assert "prepare: fewer than 30 prompts in sft_validation" in told
    for stage in ("sft: validation", "reward: test", "judge: test", "dpo: validation", "ppo: validation"):
        assert f"{stage} (n = " in told
    for name in ("sft", "ppo", "dpo"):
        headline = metrics(folder, f"eval/{name}")["t1"]
        assert isinstance(headline, dict) and 0 < headline["few_prompts"] <= 4  # evaluate.max_prompts
    selected = metrics(folder, "policy")["eval"]
    assert isinstance(selected, dict) and selected["few_prompts"] <= 4
    verdict = shown(folder, "stages.report", "--show")
    assert "test prompts: too few to tell." in verdict and "paired by prompt (n = " in " ".join(verdict.split())
    assert "too few to tell" in (folder / "report/index.html").read_text()
    assert "needed" in shown(folder, "rlhf_lib.data.show")


def test_dpo_alone_of_a_base_model_without_demonstrations(tmp_path: Path) -> None:
    """The roles of the mixture leave SFT, the reward model, the judge and PPO out; DPO starts from the base model."""
    copy_of_project(tmp_path)
    run(tmp_path, "dvc", "repro", "base")
    (tmp_path / "models/base").rename(tmp_path / "pretrained")
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["base"]["model_name_or_path"] = "pretrained"
    params["prepare"]["mixture"] = {"demo": {"roles": ["dpo"]}}
    params["policy"] = "dpo"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    told = run(tmp_path, "dvc", "repro")
    assert "sft: left out: no source gives answers to learn from; models/sft is a copy of models/base\n" in told
    assert "dpo: left out" not in told and "reward: left out: no source gives preferences\n" in told
    assert "gold" in str(metrics(tmp_path, "policy"))
