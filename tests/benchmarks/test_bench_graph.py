"""The benchmark of the whole graph: its arithmetic, the stages' names, and its stand-in for `python`."""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.graph import __main__ as graph


def seconds(wall, cpu):
    return {"wall_seconds": wall, "cpu_seconds": cpu}


CASE = graph.summary(
    {"load": seconds(2.0, 1.5), "sft": seconds(60.0, 90.0)},
    {"load": seconds(0.5, 0.25), "sft": seconds(6.0, 5.0)},
    seconds(70.0, 96.0),
    {"check": seconds(1.0, 0.5), "show": seconds(1.0, 0.5)},
    seconds(3.0, 2.0),
)


def test_the_parts_are_the_whole():
    for key in ("wall_seconds", "cpu_seconds"):
        parts = CASE[key]
        names = ("stages_work", "stages_startup", "dvc", "around_dvc")
        assert sum(parts[name] for name in names) == pytest.approx(parts["all"])
    assert CASE["wall_seconds"]["dvc"] == 8.0 and CASE["cpu_seconds"]["dvc"] == 4.5
    assert CASE["wall_seconds"]["startup_and_dvc_share"] == pytest.approx((6.5 + 8 + 2) / 72)
    assert CASE["stages"]["sft"]["work_cpu_seconds"] == 85.0


def test_the_table_has_a_row_a_stage_and_a_part():
    lines = graph.table(CASE).splitlines()
    assert lines[3] == "| sft | 60.0 | 90.0 | 5.0 | 85.0 |"
    assert lines[-3] == "| `make repro` | 72.0 | 100.0% | 97.0 | 100.0% |"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [(["python", "-m", "stages.load"], "load"), (["python", "-m", "stages.select", "ppo"], "select")]
    + [(["python", "-m", "stages.evaluate", "sft"], "evaluate@sft")]
    + [(["python", "-m", "stages.measure", "ppo"], "measure@ppo")],
)
def test_stages_are_named_as_dvc_names_them(arguments, name):
    assert graph.stage_name(arguments) == name


def test_python_is_timed_and_tells_what_it_imported(tmp_path):
    env = graph.environ(tmp_path, tmp_path / "bin")
    code = "import sys, fractions; sys.exit(3)"
    done = subprocess.run(["python", "-c", code], env=env)
    (took,) = graph.read_log(tmp_path / "stages.jsonl")
    assert done.returncode == 3
    assert took["arguments"] == [sys.executable, "-c", code]
    assert took["wall_seconds"] > 0 and took["cpu_seconds"] > 0
    with open(took["modules"]) as file:
        assert "fractions" in json.load(file)
    assert env["PATH"].split(os.pathsep)[0] == str(tmp_path / "bin")
