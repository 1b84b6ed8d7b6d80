"""Which edits are of what a stage reads: of the params and the code that dvc.yaml declares for it."""

import hashlib
import json
import os

import pytest

from rlhf_lib.common import edited

GRAPH = """\
stages:
  work:
    foreach: [a, b]
    do:
      cmd: python -m stages.work ${item}
      deps: [stages/work.py, rlhf_lib/common, 'data/${item}']
      params: [compute, sft.seed, '${item.param}']
"""
PARAMS = "compute: {device: cpu}\nsft: {seed: 0, top_p: 1.0}\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {
        "dvc.yaml": GRAPH,
        "params.yaml": PARAMS,
        ".dvcignore": "*.swp\n",
        "stages/work.py": "1",
        "rlhf_lib/common/deep/page.css": "1",
        "rlhf_lib/other/it.py": "1",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(edited, "_start", None)
    edited.begin("work@a")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("params.yaml", PARAMS.replace("cpu", "cuda"), "compute.device"),
        ("params.yaml", PARAMS.replace("seed: 0", "seed: 0.5"), "sft.seed"),
        ("params.yaml", PARAMS.replace("compute", "computer"), "compute"),
        ("stages/work.py", "2", "stages/work.py"),
        ("rlhf_lib/common/deep/page.css", "2", "rlhf_lib/common/deep/page.css"),
        ("rlhf_lib/common/new.py", "", "rlhf_lib/common/new.py"),
    ],
)
def test_an_edit_is_told(project, name, text, found):
    (project / name).write_text(text)
    with pytest.raises(SystemExit, match=f"^work@a: edited while it ran: {found}; DVC would record"):
        edited.tell()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("params.yaml", f"# a comment\n{PARAMS}dpo: {{seed: 0}}\n"),
        ("params.yaml", PARAMS.replace("top_p: 1.0", "top_p: 0.9")),
        ("rlhf_lib/other/it.py", "2"),
        ("rlhf_lib/common/.it.py.swp", "of an editor"),
        ("rlhf_lib/common/__pycache__/it.pyc", "of Python"),
    ],
)
def test_what_the_stage_does_not_read_may_be_edited(project, name, text):
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text(text)
    edited.tell()


def test_what_was_taken_back_is_no_edit(project):
    (project / "stages/work.py").write_text("2")
    (project / "stages/work.py").write_text("1")
    edited.tell()


def test_many_edits_are_counted(project):
    for number in range(5):
        (project / f"rlhf_lib/common/new{number}.py").write_text("")
    with pytest.raises(SystemExit, match="new0.py, .*new1.py, .*new2.py and 2 more;"):
        edited.tell()


@pytest.fixture
def named(project):
    """A file that params name for the stage, as stage inputs has hashed it."""
    file = project / "rows.csv"
    file.write_text("old")
    md5 = hashlib.md5(b"old").hexdigest()
    for name, value in {
        "data/inputs/work.json": {"rows.csv": md5},
        ".dvc/tmp/inputs.json": {"rows.csv": [md5, *edited.look("rows.csv")]},
    }.items():
        (project / name).parent.mkdir(parents=True)
        (project / name).write_text(json.dumps(value))
    return file


def edit(file):
    file.write_text("new")


def remove(file):
    file.unlink()


@pytest.mark.parametrize("change", [edit, remove])
def test_a_local_file_that_changed_is_told_at_the_end_and_at_the_beginning(named, change):
    edited.tell()
    change(named)
    with pytest.raises(SystemExit, match=r"^work@a: edited while it ran: rows\.csv; DVC would record"):
        edited.tell()
    with pytest.raises(
        SystemExit, match=r"^work@a: edited since stage inputs hashed it: rows\.csv; dvc repro once more"
    ):
        edited.begin("work@a")
    edited.begin("other")


@pytest.mark.parametrize("seen", [True, False])
def test_a_local_file_that_was_only_touched_is_as_it_was(project, named, seen):
    if not seen:
        (project / ".dvc/tmp/inputs.json").unlink()
    os.utime(named, (1, 1))
    edited.tell()


def test_a_local_file_of_the_same_size_and_time_is_not_read_again(named):
    """One may be a model of gigabytes."""
    found = named.stat()
    named.write_text("new")
    os.utime(named, ns=(found.st_atime_ns, found.st_mtime_ns))
    edited.tell()
