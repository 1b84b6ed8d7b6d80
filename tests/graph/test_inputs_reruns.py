"""An edited, swapped or added file makes the stages that read it run, by real DVC; the old bytes bring all back."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from copied_project import commit, copy_of_project, executed, run
from tiny_models import tiny_in

SOURCES = [
    {"reader": "file", "name": "pairs", "path": "mine/pairs.jsonl"},
    {"reader": "file", "name": "more", "path": "mine/more/*.jsonl"},
]
LENGTHS = [f"{section}.max_length=64" for section in ("sft", "reward", "judge", "reference")]
SHARES = ["sft_share=0.3", "preference_share=0.3", "judge_share=0.2", "test_share=0.2", "validation_share=0.4"]


def pairs(first: int, last: int) -> str:
    """Lines of JSON, one pair for each number."""
    rows = [
        {
            "prompt": f"Please tell me about the number {n}.",
            "chosen": f"It is {n}, of course.",
            "rejected": "I do not know.",
        }
        for n in range(first, last)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy whose rows, model and tokenizer are local files that git ignores; the graph has run up to base."""
    folder = copy_of_project(tmp_path_factory.mktemp("project"))
    (folder / "mine/more").mkdir(parents=True)
    (folder / "mine/pairs.jsonl").write_text(pairs(0, 60))
    (folder / "mine/more/a.jsonl").write_text(pairs(60, 70))
    (folder / "mine/more/b.jsonl").write_text(pairs(70, 80))
    (folder / "mine/model").mkdir()
    tiny_in(folder / "mine/model")
    with open(folder / ".gitignore", "a") as ignored:
        ignored.write("/mine/\n")
    settings = [f"load.sources={json.dumps(SOURCES)}", "base.model_name_or_path=mine/model/policy"]
    settings += [f"prepare.{share}" for share in SHARES] + ["prepare.min_score_gap=0"] + LENGTHS
    run(folder, sys.executable, "-m", "rlhf_lib.preset", "smoke", *settings)
    assert executed(run(folder, "dvc", "repro", "base")) == ["load", "prepare", "base"]
    commit(folder)
    return folder


def repro(folder: Path) -> list[str]:
    return executed(run(folder, "dvc", "repro", "base"))


def prompts(folder: Path) -> set[str]:
    lines = (folder / "data/raw/rows.jsonl").read_text().splitlines()
    return {json.loads(line)["prompt"][-1]["content"] for line in lines}


def test_nothing_changed_nothing_runs(project: Path) -> None:
    assert repro(project) == []
    assert run(project, "git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_changed_byte_runs_load_and_the_old_one_runs_nothing(project: Path) -> None:
    file = project / "mine/pairs.jsonl"
    before = file.read_text()
    file.write_text(before.replace("the number 7.", "the number 777."))
    assert executed(run(project, "dvc", "repro", "prepare")) == ["load", "prepare"]
    assert "Please tell me about the number 777." in prompts(project)
    file.write_text(before)
    assert repro(project) == []
    assert "Please tell me about the number 777." not in prompts(project)
    assert run(project, "git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_two_files_that_swap_their_contents_run_load(project: Path) -> None:
    one, other, between = (project / f"mine/more/{name}.jsonl" for name in "abc")
    for swap in (["load", "prepare"], []):
        one.rename(between)
        other.rename(one)
        between.rename(other)
        assert [stage for stage in repro(project) if stage != "base"] == swap


@pytest.mark.slow
def test_one_more_file_of_a_glob_runs_load(project: Path) -> None:
    file = project / "mine/more/c.jsonl"
    file.write_text(pairs(80, 90))
    try:
        assert repro(project)[:2] == ["load", "prepare"]
        assert "Please tell me about the number 85." in prompts(project)
    finally:
        file.unlink()
    assert repro(project) == []


@pytest.mark.slow
def test_edited_weights_run_base_alone(project: Path) -> None:
    weights = project / "mine/model/policy/model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert repro(project) == ["base"]
    weights.write_bytes(before)
    assert repro(project) == []


def test_a_touched_file_runs_nothing(project: Path) -> None:
    os.utime(project / "mine/pairs.jsonl")
    assert repro(project) == []


def test_a_missing_file_stops_before_anything_runs(project: Path) -> None:
    file = project / "mine/pairs.jsonl"
    file.rename(project / "elsewhere")
    try:
        output = run(project, "dvc", "repro", "base", check=False)
    finally:
        (project / "elsewhere").rename(file)
    assert "params.yaml: load.sources[0].path: mine/pairs.jsonl: no such file" in output
    assert executed(output) == []
    assert repro(project) == []


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "seed"), [("--temp", 7), ("--queue", 8)])
def test_an_experiment_in_a_copy_reads_the_ignored_files(project: Path, mode: str, seed: int) -> None:
    name = f"other{mode.strip('-')}"
    output = run(project, "dvc", "exp", "run", mode, "-n", name, "-S", f"prepare.seed={seed}", "prepare")
    if mode == "--queue":
        run(project, "dvc", "queue", "start")
        output = run(project, "dvc", "queue", "logs", name, "--follow")
    assert executed(output) == ["prepare"]
    assert name in run(project, "dvc", "exp", "list", "--name-only")
    assert run(project, "git", "status", "--porcelain") == ""
    assert repro(project) == []


@pytest.mark.slow
def test_a_clone_that_pulls_has_the_results_of_the_files_that_dvc_tracks(project: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    run(tmp_path, "git", "clone", "-q", str(project), "first")
    (first / "mine/more").mkdir(parents=True)
    for name in ("pairs.jsonl", "more/a.jsonl", "more/b.jsonl"):
        (first / "mine" / name).write_bytes((project / "mine" / name).read_bytes())
    run(first, "cp", "-r", str(project / "mine/model"), "mine/model")
    run(first, "sed", "-i", "s|^/mine/$||", ".gitignore")
    run(first, "dvc", "add", "-q", "mine")
    run(first, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    assert executed(run(first, "dvc", "repro", "base")) == ["load", "prepare", "base"]
    commit(first)
    run(first, "dvc", "push", "-q")
    run(tmp_path, "git", "clone", "-q", "first", "second")
    second = tmp_path / "second"
    run(second, "dvc", "pull", "-q", "--allow-missing")
    assert repro(second) == []
    (second / "mine/more/b.jsonl").unlink()
    (second / "mine/more/b.jsonl").write_text(pairs(70, 81))
    assert repro(second)[:2] == ["load", "prepare"]
