"""A stage that trains is watched by `dvc plots` and `make watch`, killed, and ends as if it had been left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from copied_project import ENV, copy_of_project, executed, run

SETTINGS = ("sft.max_steps=500", "sft.logging_steps=5", "sft.eval_steps=50", "sft.save_steps=50")
CURVES = ("metrics/sft/train.tsv", "metrics/sft/eval.tsv")
WATCH = (sys.executable, "-m", "rlhf_lib.watch", "--once")


def curves(project: Path) -> list[str]:
    return [(project / curve).read_text() for curve in CURVES]


def rows(project: Path) -> int:
    """The rows of the training curve so far."""
    file = project / CURVES[0]
    return file.read_text().count("\n") - 1 if file.exists() else 0


def until(condition, seconds=300.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_a_watched_and_killed_stage_ends_as_one_that_was_left_alone(tmp_path: Path) -> None:
    project = copy_of_project(tmp_path, *SETTINGS)
    run(project, "dvc", "repro", "base")
    with open(project / "sft.log", "w") as log:
        stage = subprocess.Popen(
            ("dvc", "repro", "-s", "sft"), cwd=project, env=ENV, start_new_session=True, stdout=log, stderr=log
        )
    until(lambda: rows(project) >= 2)
    shown = json.loads(run(project, "dvc", "plots", "show", "--json", CURVES[0]))
    points = shown["data"][CURVES[0]][0]["content"]["data"]["values"]
    assert [int(point["step"]) for point in points] == [5 * i for i in range(1, len(points) + 1)]
    assert all(float(point["loss"]) > 0 for point in points)
    watched = run(project, *WATCH).splitlines()
    assert watched[0].startswith("sft · training · ") and any(line.endswith(" left") for line in watched[:3])
    until(lambda: [*project.glob("checkpoints/sft/*/checkpoint-*/files.json")])
    assert stage.poll() is None
    os.killpg(stage.pid, signal.SIGKILL)
    stage.wait()

    left = curves(project)
    assert all(text.endswith("\n") for text in left) and 2 <= rows(project) < 100
    assert "last: sft, begun " in run(project, *WATCH)
    assert "sft:" in run(project, "dvc", "status", "sft")
    output = run(project, "dvc", "repro", "-s", "sft")
    assert executed(output) == ["sft"] and "resuming from " in output
    resumed = curves(project)
    assert all(whole.startswith(half) for whole, half in zip(resumed, left, strict=True)) and rows(project) == 100
    assert "last: sft, done " in run(project, *WATCH)

    run(project, "dvc", "repro", "-f", "-s", "sft")
    assert curves(project) == resumed

    # half a curve beside a dvc.lock that knows the whole one
    (project / CURVES[0]).write_text(left[0])
    assert "metrics/sft/train.tsv" in run(project, "dvc", "status", "sft")
    run(project, "dvc", "repro", "-s", "sft")
    assert curves(project) == resumed
