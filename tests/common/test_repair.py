"""What a kill left half-written is put right: dvc.lock, and DVC's record of who reads and writes what."""

import importlib.util
import json
import os
import py_compile
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc_objects.fs.utils import tmp_fname
from project import ROOT
from voluptuous import Invalid
from yaml import YAMLError, safe_load

from rlhf_lib import repair

WHOLE = """\
schema: '2.0'
stages:
  load:
    cmd: python -m stages.load
    deps:
    - path: stages/load.py
      hash: md5
      md5: 46e9928fcc5c03f61947ad6ff6a19769
      size: 474
    params:
      params.yaml:
        load:
          sources:
          - reader: demo
    outs:
    - path: data/raw
      hash: md5
      md5: 6e7c14f5c99711b49d8dc15c3ed09fe5.dir
      size: 2529828
      nfiles: 3
"""
MORE = WHOLE + WHOLE.partition("stages:\n")[2].replace("  load:\n    cmd", "  again:\n    cmd")
RWLOCK = json.dumps({"write": {"/p/dvc.lock": {"pid": 7, "cmd": "dvc repro"}}, "read": {}})


def git(folder, *arguments):
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository whose last commit has a dvc.lock of one stage."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc/tmp").mkdir(parents=True)
    (tmp_path / "dvc.lock").write_text(WHOLE)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "dvc.lock")
    git(tmp_path, "commit", "-qm", "a run")
    return tmp_path


def run(*arguments):
    command = [sys.executable, "-m", "rlhf_lib.repair", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin"})


def test_whole_files_are_left_alone(project):
    (project / "dvc.lock").write_text(MORE)
    (project / ".dvc/tmp/rwlock").write_text(RWLOCK)
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (project / "dvc.lock").read_text() == MORE and (project / ".dvc/tmp/rwlock").read_text() == RWLOCK
    assert sorted(path.name for path in project.iterdir() if path.is_file()) == ["dvc.lock"]


def test_a_project_without_them_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert repair.repair() == [] and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", ["", "schema: '2.0'\nstages:\n", MORE[:-3], MORE[: MORE.rindex("    outs:") + 10]])
def test_a_cut_dvc_lock_is_kept_beside_the_last_commits(project, cut):
    (project / "dvc.lock").write_text(cut)
    done = run()
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    assert done.stdout.startswith("repaired: dvc.lock: it was cut short (kept as dvc.lock.broken-1); the last commit's")
    assert (project / "dvc.lock").read_text() == WHOLE and (project / "dvc.lock.broken-1").read_text() == cut
    (project / "dvc.lock").write_text(cut)
    run()
    assert (project / "dvc.lock.broken-2").read_text() == cut
    assert run().stdout == ""


def test_a_merge_of_two_branches_results_is_repaired_alike(project):
    git(project, "checkout", "-q", "-b", "other")
    (project / "dvc.lock").write_text(WHOLE.replace("md5: ", "md5: 0"))
    git(project, "commit", "-qam", "theirs")
    git(project, "checkout", "-q", "-")
    ours = WHOLE.replace("md5: ", "md5: 1")
    (project / "dvc.lock").write_text(ours)
    git(project, "commit", "-qam", "ours")
    subprocess.run(["git", "merge", "other"], capture_output=True, check=False)
    marked = (project / "dvc.lock").read_text()
    assert "<<<<<<< " in marked
    assert run().stdout.startswith(
        "repaired: dvc.lock: it holds git's marks of a merge (kept as dvc.lock.broken-1); the"
    )
    assert (project / "dvc.lock").read_text() == ours and (project / "dvc.lock.broken-1").read_text() == marked


def test_a_dvc_that_is_writing_is_not_disturbed(project):
    """A second terminal's `make data`, while the first one's run writes dvc.lock in place."""
    file = project / "dvc.lock"
    file.write_text(MORE[:40])
    writing = Timer(repair.PATIENCE / 4, file.write_text, [MORE])
    writing.start()
    assert repair.repair() == []
    writing.join()
    assert file.read_text() == MORE and not (project / "dvc.lock.broken-1").exists()


SCRIPT = [sys.executable, "-P", str(ROOT / "rlhf_lib/repair.py")]  # as make repro runs it


@pytest.mark.parametrize("size", [0, 10, 16, 40, -1])
def test_a_compiled_module_that_a_full_disk_cut_short_goes(project, size):
    for folder in ("rlhf_lib/deep", "stages"):
        (project / folder).mkdir(parents=True)
        for name in ("whole", "cut"):
            (project / folder / f"{name}.py").write_text("words = ['one', 'two']\n")
            py_compile.compile(str(project / folder / f"{name}.py"))
    cut, whole = (
        [Path(importlib.util.cache_from_source(f"{folder}/{name}.py")) for folder in ("rlhf_lib/deep", "stages")]
        for name in ("cut", "whole")
    )
    for file in cut:
        file.write_bytes(file.read_bytes()[:size])
    done = subprocess.run(SCRIPT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [f"repaired: {file}: it was cut short; Python compiles it anew" for file in cut]
    assert done.stdout.splitlines() == lines
    assert not any(file.exists() for file in cut) and all(file.exists() for file in whole)


def test_what_dvc_left_half_copied_goes_once_nobody_writes_it(project):
    names = [".LIyz4huwToucrSz_rRi8ng.tmp", ".AAAAAAAAAAAAAAAAAAAA-_.tmp", ".mine.tmp"]
    (project / "data/splits").mkdir(parents=True)
    old, new, mine = (project / "data/splits" / name for name in names)
    for file in (old, new, mine):
        file.write_text("half")
    for file in (old, mine):
        os.utime(file, (0, 0))
    assert run().stdout == f"repaired: data/splits/{names[0]}: DVC had left it half-written; it is removed\n"
    assert [file.exists() for file in (old, new, mine)] == [False, True, True]


def test_dvcs_names_for_half_copied_files_are_those_that_are_known():
    assert repair.is_copy(tmp_fname()) and not repair.is_copy("rows.jsonl.tmp")


def test_the_script_needs_no_module_of_the_project(project):
    (project / "dvc.lock").write_text("")
    done = subprocess.run([*SCRIPT[:1], "-X", "importtime", *SCRIPT[1:]], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("repaired: dvc.lock")
    assert "rlhf_lib" not in done.stderr


def test_bytes_that_are_no_text(project):
    (project / "dvc.lock").write_bytes(b"schema: '2.0'\nstages: \xff")
    assert len(repair.repair()) == 1 and (project / "dvc.lock").read_text() == WHOLE


def test_without_a_commit_dvc_writes_it_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.lock").write_text("stages: {")
    assert repair.repair() == ["dvc.lock: it was cut short (kept as dvc.lock.broken-1); dvc repro writes it anew"]
    assert not (tmp_path / "dvc.lock").exists()


@pytest.mark.parametrize(
    "cut", ["", RWLOCK[:-5], "[]", '{"write": 3}', '{"write": {"/p/a": {}}}', '{"read": {"/p/a": [3]}}']
)
def test_a_cut_record_of_processes_is_kept_and_made_anew(project, cut):
    (project / ".dvc/tmp/rwlock").write_text(cut)
    assert repair.repair() == [
        ".dvc/tmp/rwlock: it was cut short (kept as .dvc/tmp/rwlock.broken-1); DVC makes it anew"
    ]
    assert not (project / ".dvc/tmp/rwlock").exists()


def test_a_killed_process_whose_end_nobody_has_asked_for_blocks_nobody(project):
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    ended, lives = ({"pid": pid, "cmd": "dvc repro"} for pid in (zombie.pid, os.getpid()))
    record = {"write": {"/p/a": ended, "/p/b": lives}, "read": {"/p/c": [ended, lives], "/p/d": [lives]}}
    (project / ".dvc/tmp/rwlock").write_text(json.dumps(record))
    assert repair.repair() == [f".dvc/tmp/rwlock: process {zombie.pid}, which was killed, is taken out of it"]
    left = json.loads((project / ".dvc/tmp/rwlock").read_text())
    assert left == {"write": {"/p/b": lives}, "read": {"/p/c": [lives], "/p/d": [lives]}}
    zombie.wait()
    assert repair.repair() == []


def dvc_takes(text):
    try:
        COMPILED_LOCKFILE_SCHEMA(safe_load(text))
    except (YAMLError, Invalid):
        return False
    return True


def test_whatever_dvc_would_not_take_is_seen():
    """Wherever dvc.lock is cut, at every byte: what passes here, DVC takes too."""
    assert repair.is_lock(MORE) and dvc_takes(MORE)
    unseen = [end for end in range(len(MORE)) if repair.is_lock(MORE[:end]) and not dvc_takes(MORE[:end])]
    assert unseen == []


def test_the_projects_own_dvc_lock_is_whole():
    assert repair.is_lock((ROOT / "dvc.lock").read_text(encoding="utf-8"))
