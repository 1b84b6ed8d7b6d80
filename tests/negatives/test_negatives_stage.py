"""Stage negatives as it is run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from negative_pairs import COMMIT, PAIRS, PARAMS, pair, sample
from project import ROOT

from rlhf_lib.common.rows import read_jsonl, write_jsonl
from rlhf_lib.models.params import AUTO
from rlhf_lib.negatives import sampling as negatives

FILES = ("preference_train.jsonl", "reward_train.jsonl")
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
STAGE = "import runpy, sys; runpy.run_module('stages.negatives', run_name='__main__'); print('torch' in sys.modules)"


def set_params(**changes):
    Path("params.yaml").write_text(
        json.dumps({"policy": "ppo", "compute": vars(AUTO), "negatives": {**PARAMS, **changes}})
    )


def stage(env=ENV):
    return subprocess.run([sys.executable, "-c", STAGE], env=env, capture_output=True, text=True, timeout=120)


def metrics():
    return json.loads(Path("metrics/negatives/summary.json").read_text())["negatives"]


def test_without_a_model_the_files_are_copied_and_torch_is_not_imported(project):
    Path("data/splits/reward_train.jsonl").write_bytes(b'{"id":  "a-0"}\r\n\n')  # bytes that are not ours
    set_params(model_name_or_path=None)
    done = stage()
    assert (done.stdout, done.stderr) == ("False\n", "")
    for name in FILES:
        assert Path("data/negatives", name).read_bytes() == Path("data/splits", name).read_bytes()
    zeros = dict.fromkeys(("prompts", "added", "known", "blank", "repeated", "cut", "mean_tokens"), 0)
    assert metrics() == {"preference_train": zeros, "reward_train": zeros}


def test_a_missing_file_is_told(project):
    Path("data/splits/reward_train.jsonl").unlink()
    set_params(model_name_or_path=None)
    done = stage()
    assert done.returncode == 1 and done.stderr.startswith("data/splits/reward_train.jsonl: No such file")
    assert len(done.stderr.splitlines()) == 1


def kill_after_a_chunk(env):
    """Run the stage until it has saved something, and kill it; for how many prompts it had saved samples."""
    with (
        open("killed.log", "w") as log,
        subprocess.Popen([sys.executable, "-c", STAGE], env=env, stderr=log) as process,
    ):
        while process.poll() is None and not any(
            f.stat().st_size for f in Path().glob("checkpoints/*/*/samples.jsonl")
        ):
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL, Path("killed.log").read_text()
    (file,) = Path().glob("checkpoints/negatives/*/samples.jsonl")
    return sum(len(json.loads(line)) for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))


@pytest.mark.slow
def test_a_stage_that_was_killed_goes_on_to_the_same_bytes(project, ending):
    """The model is one in the hub's cache; what it should come to is made here, from the same weights."""
    many = [{**p, "id": f"{i}{p['id']}"} for i in range(4) for p in PAIRS]
    write_jsonl("data/splits/preference_train.jsonl", many)
    write_jsonl("data/splits/reward_train.jsonl", [*many[::2], *(pair(f"{i}-0", "Cat.", 2) for i in range(4))])
    splits = [Path("data/splits", name) for name in FILES]
    samples = sample(of=negatives.prompts(splits))
    counts = {"preference_train": Counter(), "reward_train": Counter()}
    for split, count in zip(splits, counts.values(), strict=True):
        write_jsonl(Path("expected", split.name), negatives.extend(read_jsonl(split), samples, count))

    shutil.copytree(ending, project / "hub/models--owner--name/snapshots" / COMMIT)
    shutil.rmtree("models")
    set_params(model_name_or_path=f"owner/name@{COMMIT}", per_device_eval_batch_size=1)
    env = {**ENV, "HF_HUB_CACHE": str(project / "hub"), "DVC_ROOT": str(project)}
    saved = kill_after_a_chunk(env)
    assert 0 < saved < len(samples) and not Path("data/negatives").exists()
    done = stage(env)
    assert done.stdout == f"resuming after {saved} of {len(samples)} prompts\nTrue\n", done.stderr
    for name in FILES:
        assert Path("data/negatives", name).read_bytes() == Path("expected", name).read_bytes()
    got = metrics()
    assert got.keys() == counts.keys()
    for name, count in counts.items():
        assert got[name] == pytest.approx(negatives.summary(count), rel=1e-5)
    assert not list(Path("checkpoints/negatives").iterdir())
