"""Places that commands must not write to."""

import shutil

import pytest
from project import DEMO, ROOT
from tracked import track

from rlhf_lib.inputs.owned import owner


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository with the project's dvc.yaml and a file that git tracks, in which nothing was made yet."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    shutil.copy(DEMO, "params.yaml")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/one (1)*.md").write_text("a")
    (tmp_path / "docs/new.md").write_text("a")
    track("docs/one (1)*.md", "dvc.yaml")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "whose"),
    [
        ("data/splits/test.jsonl", "is made by stage prepare (dvc.yaml)"),
        ("./data/../data/splits/test.jsonl", "is made by stage prepare (dvc.yaml)"),
        ("data/samples/ppo.jsonl", "is made by stage evaluate@ppo (dvc.yaml)"),
        ("data/splits/mine.jsonl", "lies in data/splits, where stage prepare writes (dvc.yaml)"),
        ("metrics/sft/mine.csv", "lies in metrics, where stage prepare writes (dvc.yaml)"),
        ("models/dpo", "is made by stage dpo (dvc.yaml)"),
        ("models/dpo/mine.csv", "lies in models/dpo, which stage dpo makes (dvc.yaml)"),
        ("models", "holds models/base, which stage base makes (dvc.yaml)"),
        ("dvc.yaml", "is tracked by git"),
        ("docs/one (1)*.md", "is tracked by git"),
        ("docs", "holds files that git tracks"),
        *((path, None) for path in ("a.jsonl", "docs/new.md", "docs/*", "dist/dpo", "data/mine.jsonl", "models/mine")),
    ],
)
def test_what_stages_make_and_git_tracks_has_an_owner(project, path, whose):
    assert owner(path) == whose
    assert owner(str(project / path)) == whose


def test_links_are_followed(project):
    (project / "data/splits").mkdir(parents=True)
    (project / "splits").symlink_to("data/splits")
    (project / "a.jsonl").symlink_to("docs/one (1)*.md")
    assert owner("splits/test.jsonl") == "is made by stage prepare (dvc.yaml)"
    assert owner("a.jsonl") == "is tracked by git"


def test_without_a_project_or_git_nothing_has(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    assert owner("data/splits/test.jsonl") is None
