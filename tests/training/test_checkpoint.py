import json
import os

import pytest

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.training import whole
from rlhf_lib.training.checkpoint import CheckpointDir, fingerprint

DVC = """\
stages:
  sft:
    cmd: python -m stages.sft
    deps: [data/rows.jsonl, models/base]
    params: [sft]
"""
PARAMS = "policy: ppo\nsft:\n  seed: 0\nppo:\n  seed: 0\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "dvc.yaml").write_text(DVC)
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows.jsonl").write_text("{}\n")
    (tmp_path / "models/base/deep").mkdir(parents=True)
    (tmp_path / "models/base/config.json").write_text("{}")
    (tmp_path / "models/base/deep/weights").write_bytes(b"\x00\x01")
    return tmp_path


def checkpoint(folder, step, **state):
    """A whole checkpoint, of files that only a test can tell from a trainer's."""
    path = folder / f"checkpoint-{step}"
    (path / "deep").mkdir(parents=True)
    for name in ("model.safetensors", "optimizer.pt", "deep/shard.bin"):
        (path / name).write_bytes(b"x" * step)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "loss": 0.123456789, **state}))
    whole.seal(path)
    return path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


CHANGES = {
    "the command": lambda root: edit(root / "dvc.yaml", "stages.sft", "stages.sft --again"),
    "a param": lambda root: edit(root / "params.yaml", "sft:\n  seed: 0", "sft:\n  seed: 1"),
    "the type of a param": lambda root: edit(root / "params.yaml", "sft:\n  seed: 0", "sft:\n  seed: 0.0"),
    "a dep": lambda root: edit(root / "data/rows.jsonl", "{}", "{ }"),
    "a file in a dep": lambda root: edit(root / "models/base/config.json", "{}", "{ }"),
    "a file deep in a dep": lambda root: (root / "models/base/deep/weights").write_bytes(b"\x00\x02"),
    "a new file in a dep": lambda root: (root / "models/base/new").touch(),
    "a lost file in a dep": lambda root: (root / "models/base/config.json").unlink(),
    "a renamed file in a dep": lambda root: (root / "models/base/config.json").rename(root / "models/base/c.json"),
    "a list of deps": lambda root: edit(root / "dvc.yaml", "data/rows.jsonl, ", ""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_fingerprint_follows(project, change):
    before = fingerprint("sft")
    assert len(before) == 16 and before == fingerprint("sft")
    change(project)
    assert fingerprint("sft") != before


def test_the_fingerprint_follows_the_number_of_processes(project, monkeypatch):
    """Two take twice the batch, also where the launcher was not named in params.yaml but typed."""
    found = []
    for count in ("1", "2", "4"):
        monkeypatch.setenv("WORLD_SIZE", count)
        found.append(fingerprint("sft"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # on two machines, which compute the same
    assert fingerprint("sft") == found[2]
    monkeypatch.delenv("WORLD_SIZE")
    assert len(set(found)) == 3 and fingerprint("sft") == found[0]


def test_any_number_of_processes_may_go_on_where_the_batch_is_shared_out(project, monkeypatch):
    """But not those that have shards from those that have none, nor the other way round."""
    edit(project / "dvc.yaml", "cmd: ", "cmd: ${launch} ")
    found = set()
    for launch, count in (("python", "1"), ("accelerate launch", "2"), ("accelerate launch --num_processes 4", "4")):
        edit(project / "params.yaml", "policy: ppo", f"policy: ppo\nlaunch: {launch}")
        monkeypatch.setenv("WORLD_SIZE", count)
        found.add(fingerprint("sft", any_processes=True))
        edit(project / "params.yaml", f"policy: ppo\nlaunch: {launch}", "policy: ppo")
    assert len(found) == 1
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert fingerprint("sft", any_processes=True) not in found


def test_the_fingerprint_leaves_the_rest_out(project):
    before = fingerprint("sft")
    edit(project / "params.yaml", "ppo:\n  seed: 0", "ppo:\n  seed: 1")
    edit(project / "params.yaml", "policy: ppo", "policy: dpo")
    edit(project / "params.yaml", "sft:\n", "# a comment\nsft:\n")
    edit(project / "dvc.yaml", "stages:\n", "stages:\n  other: {cmd: x, deps: []}\n")
    (project / "data/other.jsonl").write_text("{}\n")
    assert fingerprint("sft") == before


def test_the_fingerprint_leaves_compiled_modules_out(project):
    """The first run of PPO compiles rewards/*.py; a second one must still find the checkpoints of the first."""
    before = fingerprint("sft")
    (project / "models/base/__pycache__").mkdir()
    (project / "models/base/__pycache__/mine.cpython-311.pyc").write_bytes(b"\x00")
    assert fingerprint("sft") == before


def test_the_fingerprint_does_not_depend_on_where_the_project_is(project, monkeypatch):
    before = fingerprint("sft")
    elsewhere = project.rename(project.with_name(project.name + "-moved"))
    monkeypatch.chdir(elsewhere)
    assert fingerprint("sft") == before


def test_the_same_inputs_find_their_checkpoints_again(project):
    first = CheckpointDir("sft")
    path = first.path
    checkpoint(path, 1)
    del first  # the process ends, and with it the lock
    again = CheckpointDir("sft")
    assert again.path == path == project / "checkpoints/sft" / fingerprint("sft")
    assert again.latest() == str(path / "checkpoint-1")


def test_other_inputs_do_not(project):
    first = CheckpointDir("sft").path
    edit(project / "params.yaml", "sft:\n  seed: 0", "sft:\n  seed: 1")
    assert CheckpointDir("sft").path != first


@pytest.mark.parametrize("place", [".dvc/cache", "elsewhere/cache"])
def test_they_stay_where_dvcs_cache_has_no_room_for_the_outs(project, monkeypatch, place):
    """DVC copies them once the stage has ended: what fails then would be trained anew."""
    monkeypatch.setenv("DVC_STAGE", "sft")
    edit(project / "dvc.yaml", "    params", "    outs: [models/sft: {push: false}, huge: {cache: false}]\n    params")
    (project / ".dvc").mkdir()
    (project / ".dvc/config").write_text(f"[cache]\n    dir = ../{place}\n")
    weights = project / "models/sft/deep/weights"
    weights.parent.mkdir(parents=True)
    with open(weights, "wb") as file:
        file.truncate(2**43)  # takes no room
    os.link(weights, "huge")
    checkpoints = CheckpointDir("sft")
    checkpoint(checkpoints.path, 1)
    with pytest.raises(SystemExit, match=r"^sft: .*: the disk of DVC's cache has .* MB left, .* take 8,796,093.0 MB;"):
        checkpoints.remove()
    assert checkpoints.latest()
    weights.write_bytes(b"0")
    checkpoints.remove()
    assert not checkpoints.path.exists()


def test_a_second_run_keeps_its_checkpoints_apart_while_the_first_is_on(project, capsys):
    first = CheckpointDir("sft")
    checkpoint(first.path, 1)
    second = CheckpointDir("sft")
    assert second.path != first.path and second.path.is_dir() and second.latest() is None
    assert str(first.path) in capsys.readouterr().out
    second.remove()
    assert not second.path.exists() and first.latest() is not None
    assert CheckpointDir("sft").path != first.path


def test_there_is_no_newest_checkpoint_at_first(project):
    assert CheckpointDir("sft").latest() is None


def test_the_newest_checkpoint_is_the_largest_step_that_is_whole(project, capsys):
    checkpoints = CheckpointDir("sft")
    for step in (2, 9, 10):
        checkpoint(checkpoints.path, step)
    (checkpoints.path / "runs").mkdir()
    assert checkpoints.latest() == str(checkpoints.path / "checkpoint-10")
    assert capsys.readouterr().out == ""
    (checkpoints.path / "checkpoint-100").mkdir()  # killed while it was written
    assert checkpoints.latest() == str(checkpoints.path / "checkpoint-10")
    assert capsys.readouterr().out == f"{checkpoints.path}: checkpoint-100 was cut short: it is not taken up again\n"


BROKEN = {
    "a lost file": (lambda path: (path / "optimizer.pt").unlink(), "checkpoint-9 lacks optimizer.pt"),
    "a lost file in a folder": (lambda path: (path / "deep/shard.bin").unlink(), "checkpoint-9 lacks deep/shard.bin"),
    "a cut file": (
        lambda path: (path / "model.safetensors").write_bytes(b"x"),
        "checkpoint-9 has only a part of model.safetensors",
    ),
    "an empty state": (lambda path: (path / "trainer_state.json").write_text(""), "checkpoint-9 was cut short"),
    "a state of zeros": (
        lambda path: (path / "trainer_state.json").write_text("\0" * 40),
        "checkpoint-9 was cut short",
    ),
    "no list": (lambda path: (path / "files.json").unlink(), "checkpoint-9 was cut short"),
    "a cut list": (lambda path: (path / "files.json").write_text('{"optimizer.pt": 9, "mod'), "was cut short"),
    "a list of something else": (lambda path: (path / "files.json").write_text("[]\n"), "was cut short"),
    "a list of another form": (lambda path: (path / "files.json").write_text('{"optimizer.pt": 9}'), "was cut short"),
    "no best": (lambda path: whole.delete(path.with_name("checkpoint-3")), "checkpoint-3 was cut short"),
    "a best that is not whole": (
        lambda path: (path.with_name("checkpoint-3") / "model.safetensors").unlink(),
        "checkpoint-3 lacks model.safetensors",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_checkpoint_that_is_not_whole_is_left_out_and_told(project, capsys, name):
    checkpoints = CheckpointDir("sft")
    checkpoint(checkpoints.path, 2)
    checkpoint(checkpoints.path, 3)
    path = checkpoint(checkpoints.path, 9, best_model_checkpoint=str(checkpoints.path / "checkpoint-3"))
    assert checkpoints.latest() == str(path)
    break_it, told = BROKEN[name]
    break_it(path)
    left = "checkpoint-2" if "best" in name else "checkpoint-3"
    assert checkpoints.latest() == str(checkpoints.path / left)
    assert told in capsys.readouterr().out


def test_no_place_of_a_machine_is_in_a_checkpoint(project):
    path = checkpoint(project, 5, best_model_checkpoint=str(project / "checkpoint-5"))
    state = json.loads((path / "trainer_state.json").read_text())
    assert state == {"global_step": 5, "loss": 0.123456789, "best_model_checkpoint": None}
    assert whole.fault(path) is None and whole.best(path) == path
    assert whole.best(checkpoint(project, 6)) is None


def test_what_is_deleted_loses_its_name_first(project, monkeypatch):
    """A kill within the deletion leaves nothing that looks like a checkpoint, and the next run sweeps it away."""
    checkpoints = CheckpointDir("sft")
    path = checkpoint(checkpoints.path, 5)

    def killed(doomed, **options):
        (doomed / "model.safetensors").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(whole.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            whole.delete(path)
        assert checkpoints.latest() is None
        with pytest.raises(KeyboardInterrupt):
            checkpoints.remove()
    base = project / "checkpoints/sft"
    assert [left.name.startswith(".deleted-") for left in base.iterdir()] == [True]
    again = CheckpointDir("sft")
    assert again.latest() is None and list(base.iterdir()) == [again.path]


def test_every_process_of_a_run_has_the_same_directory(project, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    first = CheckpointDir("sft")
    monkeypatch.setenv("RANK", "1")
    assert CheckpointDir("sft").path == first.path
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ParamsError, match=r"in use by another run of sft; wait for it to end$") as error:
        CheckpointDir("sft")
    assert "\n" not in str(error.value)


def test_remove_deletes_the_directory_and_lets_the_next_run_have_it(project):
    checkpoints = CheckpointDir("sft")
    (checkpoints.path / "checkpoint-1").mkdir()
    checkpoints.remove()
    assert not checkpoints.path.exists()
    again = CheckpointDir("sft")
    assert again.path == checkpoints.path and again.latest() is None


def test_checkpoints_lie_in_the_project_whatever_the_workspace(project, tmp_path_factory, monkeypatch):
    root = tmp_path_factory.mktemp("root")
    monkeypatch.setenv("DVC_ROOT", str(root))
    assert CheckpointDir("sft").path == root / "checkpoints/sft" / fingerprint("sft")
    assert not (project / "checkpoints").exists()
