"""What `make prune` tells and frees, in a small project of DVC and git."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from copied_project import ENV, executed, run
from project import ROOT
from swept import BETAS, SAMPLES, TOKENIZER, WEIGHTS, has_weights, prune, stored

from rlhf_lib.prune.cache import Cache


def freed(done):
    """The bytes that a prune says it has freed."""
    assert done.returncode == 0, done.stdout + done.stderr
    if done.stdout.endswith("\n\nnothing to free\n"):
        return 0
    return int(done.stdout.split("(")[-1].split(" bytes")[0])


def test_a_dry_run_tells_what_would_go_and_touches_nothing(project):
    before = stored(project)
    done = prune(project)
    assert done.returncode == 0, done.stderr
    assert stored(project) == before
    lists = sum(size for name, size in before.items() if name.endswith(".dir")) * 3 // 5  # of five models of one form
    assert f"would free 300.4 kB ({3 * WEIGHTS + lists} bytes)" in done.stdout
    lines = {line.split("|")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("| ")}
    assert {"train", "base", *BETAS} <= lines.keys()
    for name in BETAS:
        cells = [cell.strip() for cell in lines[name].split("|")]
        # shared: the model of base, with the tokenizer that all have; its own: weights, their list, samples, metrics
        assert cells[3:6] == ["105.1 kB", "", f"{(WEIGHTS + lists / 3 + SAMPLES + 12) / 1000:.1f} kB"]


def test_the_models_go_and_all_else_stays_as_it_was(project):
    before, listed = stored(project), run(project, "dvc", "exp", "show", "--csv")
    done = prune(project, "--apply")
    after = stored(project)
    assert freed(done) == sum(before.values()) - sum(after.values())
    gone = before.keys() - after.keys()
    assert sorted(before[name] for name in gone if not name.endswith(".dir")) == [WEIGHTS] * 3
    assert sum(name.endswith(".dir") for name in gone) == 3
    assert list(after.values()).count(TOKENIZER) == 1
    assert list(after.values()).count(SAMPLES) == 4  # what make study reads of an experiment
    assert not (project / ".dvc/tmp/prune").exists()
    assert executed(run(project, "dvc", "repro")) == []
    assert "up to date" in run(project, "dvc", "status")
    assert run(project, "git", "status", "--porcelain") == ""
    assert run(project, "dvc", "exp", "show", "--csv") == listed
    assert freed(prune(project, "--apply")) == 0
    assert "nothing to free" in prune(project).stdout


def test_a_pruned_experiment_has_its_numbers_and_trains_its_model_again(project):
    lock = run(project, "git", "show", "HEAD:dvc.lock")
    prune(project, "--apply")
    said = run(project, "dvc", "exp", "apply", "low", check=False)
    assert "Checkout failed" in said and "models/train" in said
    assert json.loads((project / "metrics/train.json").read_text()) == {"beta": 1}
    assert (project / "data/samples").read_text().startswith("train 1 ")
    applied = (project / "dvc.lock").read_text()
    assert applied != lock
    assert executed(run(project, "dvc", "repro")) == ["train"]
    assert (project / "dvc.lock").read_text() == applied
    assert has_weights(project, 1)


@pytest.mark.slow
def test_an_experiment_with_the_params_of_a_pruned_one_runs(project):
    """The run cache names a model that is gone: DVC trains instead."""
    prune(project, "--apply")
    told = run(project, "dvc", "exp", "run", "--temp", "--name", "again", "-S", "train.beta=1")
    assert executed(told) == ["train"]


def test_patterns_choose_and_keep(project):
    assert freed(prune(project, "--experiments", "*o*", "--keep", "best", "--apply")) > WEIGHTS
    assert {name for name, beta in BETAS.items() if has_weights(project, beta)} == {"high", "best"}
    done = prune(project, "--keep", "bset", "--apply")
    assert done.returncode == 1 and done.stderr.splitlines() == [
        "bset: no experiment is called so; make experiments lists them"
    ]
    assert has_weights(project, BETAS["best"])


@pytest.mark.slow
def test_only_old_ones(project):
    assert freed(prune(project, "--older-than", "1", "--apply")) == 0
    assert freed(prune(project, "--older-than", "0", "--apply")) > 3 * WEIGHTS


@pytest.mark.slow
def test_models_that_only_the_run_cache_knows_go_when_asked_to(project):
    run(project, "dvc", "exp", "remove", "low")
    before = stored(project)
    assert not has_weights(project, 9)
    assert freed(prune(project, "--experiments", "high", "--apply")) < 2 * WEIGHTS
    assert has_weights(project, BETAS["low"])
    assert freed(prune(project, "--keep", "best", "--unnamed", "--apply")) > WEIGHTS
    assert not has_weights(project, BETAS["low"]) and has_weights(project, BETAS["best"])
    assert has_weights(project, 0) and has_weights(project, 0, "base")
    assert list(stored(project).values()).count(SAMPLES) == list(before.values()).count(SAMPLES)


def test_bytes_that_a_hard_link_keeps_are_not_counted(project):
    weights = [name for name, size in stored(project).items() if size == WEIGHTS]
    for number, name in enumerate(weights):
        os.link(project / ".dvc/cache/files/md5" / name[:2] / name[2:], project.parent / f"link-{number}")
    done = prune(project)
    assert f"{3 * WEIGHTS / 1000:.1f} kB more are in the workspace too by hard links" in done.stdout
    assert freed(prune(project, "--apply")) < 1000


def test_a_cache_of_several_clones_is_left_alone_unless_one_says_so(project):
    shutil.move(project / ".dvc/cache", project.parent / "cache")
    run(project, "dvc", "config", "--local", "cache.dir", str(project.parent / "cache"))
    done = prune(project, "--apply")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and "another clone" in done.stderr and "--shared" in done.stderr
    assert "and --shared would free" in prune(project).stdout
    assert freed(prune(project, "--apply", "--shared")) > 3 * WEIGHTS


def refused(project, before):
    done = prune(project, "--apply")
    assert done.returncode == 1 and stored(project) == before
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.slow
def test_not_while_a_stage_or_an_experiment_runs(project):
    before = stored(project)
    lock = project / ".dvc/tmp/exps/tmp1/.dvc/tmp/stages/dpo.lock"
    lock.parent.mkdir(parents=True)
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "stage dpo is running" in refused(project, before)
        assert prune(project).returncode == 0
    code = "import time; time.sleep(600)"
    other = subprocess.Popen([sys.executable, "-c", code, "dvc", "exp", "run"], cwd=project / ".dvc/tmp")
    try:
        assert f"process {other.pid} is at work here" in refused(project, before)
    finally:
        other.kill()
        other.wait()
    code = "from dvc.repo import Repo; r = Repo('.'); r.lock.lock(); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=project, env=ENV, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        assert "another command of DVC is at work" in refused(project, before)
        holder.communicate(b"\n")
    assert freed(prune(project, "--apply")) > 3 * WEIGHTS


@pytest.mark.slow
def test_killed_in_the_middle_nothing_is_half_there_and_the_next_goes_on(project, monkeypatch):
    folder = project / ".dvc/cache/files/md5"
    whole = shutil.copytree(project, project.parent / "whole")
    prune(whole, "--apply")
    weights = {name for name, size in stored(project).items() if size == WEIGHTS}
    gone = stored(project).keys() - stored(whole).keys()
    cache, deleted = Cache(folder, project / ".dvc/tmp/prune"), []

    def unlink(file, **options):
        if deleted:
            raise KeyboardInterrupt
        deleted.append(file)
        os.unlink(file)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        cache.remove(gone)
    monkeypatch.undo()
    assert len(weights & stored(project).keys()) == len(weights) - 1
    for name in BETAS:  # of no model is more there than DVC sees
        assert "Checkout failed" in run(project, "dvc", "exp", "apply", name, check=False)
        run(project, "git", "checkout", "-q", ".")
    run(project, "dvc", "checkout", "-q")
    assert freed(prune(project, "--apply")) == 2 * WEIGHTS
    assert stored(project) == stored(whole)


@pytest.mark.slow
def test_a_list_that_a_killed_prune_took_comes_back_where_its_model_is_to_stay(project):
    cache = Cache(project / ".dvc/cache/files/md5", project / ".dvc/tmp/prune")
    before = stored(project)
    cache.doomed.mkdir(parents=True)
    for name in (name for name in before if name.endswith(".dir")):
        shutil.move(cache.path(name), cache.doomed / name)
    assert freed(prune(project, "--keep", "low", "--apply")) > WEIGHTS
    assert {name for name, beta in BETAS.items() if has_weights(project, beta)} == {"low"}
    assert has_weights(project, 0) and executed(run(project, "dvc", "repro")) == []


@pytest.mark.slow
def test_stale_checkpoints_and_left_workspaces_go_when_asked_to(project):
    fingerprint = "from rlhf_lib.training.checkpoint import fingerprint as f; print(f('train'))"
    environment = {**ENV, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    current = subprocess.run(
        [sys.executable, "-c", fingerprint], cwd=project, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    for name in (current, f"{current}-abc", "0123456789abcdef", "fedcba9876543210"):
        state = project / "checkpoints/train" / name / "checkpoint-1/state"
        state.parent.mkdir(parents=True)
        state.write_bytes(bytes(1000))
        (state.parents[1] / ".lock").touch()
    left = project / ".dvc/tmp/exps/tmpabc/models"
    left.mkdir(parents=True)
    (left / "weights").write_bytes(bytes(700))
    with open(project / "checkpoints/train/fedcba9876543210/.lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert freed(prune(project, "--keep", "*", "--apply")) == 0
        assert freed(prune(project, "--keep", "*", "--checkpoints", "--workspaces")) == 1700
        assert freed(prune(project, "--keep", "*", "--checkpoints", "--workspaces", "--apply")) == 1700
    there = {path.name for path in (project / "checkpoints/train").iterdir()}
    assert there == {current, f"{current}-abc", "fedcba9876543210"}
    assert not left.exists()


def test_what_is_no_project_is_told_in_a_line(tmp_path, project):
    for folder in (tmp_path, project / "models"):
        done = prune(folder)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    lock = project / "dvc.lock"
    lock.write_text(lock.read_text()[:300] + "\n  - [")
    assert "make repro repairs it" in prune(project, "--apply").stderr


def test_that_nobody_reads_the_tables_is_told_as_every_command_tells_it(project):
    command = f"'{sys.executable}' -u -m rlhf_lib.prune --apply | true; exit ${{PIPESTATUS[0]}}"
    environment = {**ENV, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.strip().startswith("nobody reads the output any more")
