"""Stages on two machines, in network namespaces of this one, by the commands of docs/scaling.md."""

import csv
import json
import shutil
import sys

import pytest
from copied_project import commit, copy_of_project, run
from two_hosts import hindrance, two_hosts

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(hindrance()), reason=f"two hosts: {hindrance()}")]

CLOSE = 1e-4  # sums over another split of the rows are in another order
COMPARED = ("loss", "grad_norm", "learning_rate")  # TRL averages its other metrics over micro-batches
FP32 = "compute.precision=fp32"
# so many steps that there is time to end one of them in the middle
LONG = ("sft.max_steps=60", "sft.save_steps=10", "sft.eval_steps=30", "sft.logging_steps=10")
# Machine 1 sees the project as a read-only file system, but for the checkpoints.
READS = """
mount --bind . . && mount -o remount,ro,bind . && cd "$PWD" &&
mount --bind checkpoints checkpoints && mount -o remount,rw,bind checkpoints && exec "$@"
"""


@pytest.fixture
def hosts():
    with two_hosts() as hosts:
        yield hosts


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A project in which all has run that `sft` and `ppo` need."""
    folder = copy_of_project(tmp_path_factory.mktemp("prepared") / "project")
    run(folder, sys.executable, "-m", "rlhf_lib.preset", "smoke", FP32)
    run(folder, "dvc", "repro", "-q", "reward")
    commit(folder)
    return folder


@pytest.fixture
def project(prepared, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(prepared, folder, symlinks=True)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return folder


def curves(project, stage):
    return {part: (project / f"metrics/{stage}/{part}.tsv").read_bytes() for part in ("train", "eval")}


def rows(curve):
    return [
        {name: float(value) for name, value in row.items() if value}
        for row in csv.DictReader(curve.decode().splitlines(), delimiter="\t")
    ]


def summary(project):
    return json.loads((project / "metrics/sft/summary.json").read_text())["sft"]


def forget(project, stage):
    shutil.rmtree(project / f"metrics/{stage}")
    shutil.rmtree(project / f"models/{stage}", ignore_errors=True)


def preset(project, *settings):
    run(project, sys.executable, "-m", "rlhf_lib.preset", "smoke", FP32, *settings)


def in_two_processes(project):
    return run(project, "accelerate", "launch", "--config_file", "launch/cpu-2.yaml", "-m", "stages.sft")


def checkpoint(project, step):
    return next(project.glob(f"checkpoints/sft/*/checkpoint-{step}/files.json"), None)


def assert_close(curve, other, compared=None):
    assert len(rows(curve)) == len(rows(other)) > 0
    for row, expected in zip(rows(curve), rows(other), strict=True):
        assert row.keys() == expected.keys()
        for name in row.keys() & (compared or row.keys()):
            assert row[name] == pytest.approx(expected[name], abs=CLOSE, rel=CLOSE), name


def test_sft_on_two_machines_is_sft_in_two_processes_and_in_one(hosts, project):
    forget(project, "sft")
    hosts.run(project, "stages.sft")
    found, weights = curves(project, "sft"), (project / "models/sft/model.safetensors").read_bytes()
    validation_loss = summary(project)["validation_loss"]

    forget(project, "sft")
    in_two_processes(project)
    assert curves(project, "sft") == found
    assert (project / "models/sft/model.safetensors").read_bytes() == weights

    forget(project, "sft")
    preset(project, "sft.gradient_accumulation_steps=2")
    run(project, sys.executable, "-m", "stages.sft")
    assert_close(found["train"], curves(project, "sft")["train"], COMPARED)
    assert summary(project)["validation_loss"] == pytest.approx(validation_loss, abs=CLOSE)


def test_ppo_on_two_machines_is_ppo_in_one_process(hosts, project):
    preset(project, "ppo.per_device_train_batch_size=2")
    run(project, sys.executable, "-m", "stages.ppo")
    alone = curves(project, "ppo")
    forget(project, "ppo")
    hosts.run(project, "stages.ppo")
    for part, curve in curves(project, "ppo").items():
        assert_close(curve, alone[part])


def test_only_machine_0_writes(hosts, project):
    """All but the random state of its processes in each checkpoint, from which they go on."""
    forget(project, "sft")
    (project / "checkpoints").mkdir()
    around = ("unshare", "-m", "sh", "-c", READS, "sh")
    hosts.run(project, "stages.sft", around)
    assert rows(curves(project, "sft")["train"])
    assert (project / "models/sft/model.safetensors").is_file()
    assert not checkpoint(project, 4), "what is not needed any more is gone"


def test_where_a_machine_ends_the_other_says_so_and_the_training_goes_on(hosts, project):
    preset(project, *LONG)
    hosts.run(project, "stages.sft")
    whole, weights = curves(project, "sft"), (project / "models/sft/model.safetensors").read_bytes()
    # on both machines; or in as many processes on one, which compute the same
    for rank, goes_on in ((0, lambda: hosts.run(project, "stages.sft")), (1, lambda: in_two_processes(project))):
        forget(project, "sft")
        hosts.start((project, project), "stages.sft")
        hosts.until(lambda: checkpoint(project, 20))
        hosts.kill(rank)
        codes = hosts.wait(seconds=60)
        assert codes[1 - rank] == 1 and codes[rank] < 0
        told = hosts.said(1 - rank)
        assert "\nsft: another process of this run has ended, and this ends with it; see what it said" in told
        assert not list(project.glob("models/sft/*"))
        assert "resuming from" in goes_on()
        assert curves(project, "sft") == whole
        assert (project / "models/sft/model.safetensors").read_bytes() == weights


def test_a_machine_that_is_lost_without_a_word_does_not_hold_up_the_others(hosts, project):
    module = project / "rlhf_lib/models/machines.py"
    text = module.read_text()
    module.write_text(text.replace("PATIENCE = 24 ", "PATIENCE = 3 "))
    assert module.read_text() != text
    preset(project, *LONG)
    hosts.start((project, project), "stages.sft")
    hosts.until(lambda: checkpoint(project, 20))
    hosts.pull_the_cable()
    assert hosts.wait(seconds=240) == [1, 1]
    assert "machine 1 has given no sign of life for 15 s, and this ends with it" in hosts.said(0)
    assert "machine 0 has given no sign of life for 15 s, and this ends with it" in hosts.said(1)


def test_machines_that_do_not_share_the_folder_are_told_so(hosts, project, tmp_path):
    other = tmp_path / "elsewhere/project"
    shutil.copytree(project, other, symlinks=True)
    before = curves(project, "sft")
    hosts.start((project, other), "stages.sft")
    assert hosts.wait() == [1, 1]
    for rank in (0, 1):
        assert "machine 1 does not see what machine 0 writes there" in hosts.said(rank)
    assert curves(project, "sft") == before
