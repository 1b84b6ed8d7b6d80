"""Where an export may not lie, and what licence a card may name."""

import json
from pathlib import Path

import pytest
from tracked import track

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.export import target
from rlhf_lib.export.__main__ import main
from rlhf_lib.export.directory import MANIFEST, replacing
from rlhf_lib.export.options import LICENSES, License, license_of

GRAPH = """
stages:
  train: {cmd: x, outs: [models/dpo, data/ours: {cache: false}], metrics: [metrics/dpo.json: {cache: false}]}
  each: {foreach: [a, b], do: {cmd: x, outs: ['models/${item}-of-many']}}
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes/dpo").mkdir(parents=True)
    (tmp_path / "notes/dpo/a.txt").write_text("mine")
    track("README.md", "notes")
    return tmp_path


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("models/dpo", "is the model that was named"),
        ("models/../models/dpo", "is the model that was named"),
        ("models/dpo/dpo", "lies in models/dpo, which stage train makes"),
        ("models", "holds models/dpo, which stage train makes"),
        ("models/b-of-many", "is made by stage each@b"),
        ("data/ours/dpo", "lies in data/ours, which stage train makes"),
        ("metrics", "holds metrics/dpo.json, which stage train makes"),
        ("notes/dpo", "holds files that git tracks"),
        ("README.md/dpo", "cannot be written: README.md: a file, and no folder"),
        ("README.md/a/b/dpo", "cannot be written: README.md: a file, and no folder"),
    ],
)
def test_an_export_takes_no_others_place(project, folder, told):
    with pytest.raises(ParamsError, match=told) as error:
        target.check(Path("models/dpo"), Path(folder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("folder", ["dist/dpo", "notes/new", "models/new", "../elsewhere/dpo"])
def test_all_other_places_are_free(project, folder):
    target.check(Path("models/dpo"), Path(folder))


def test_an_export_is_no_source(project):
    Path("dist/dpo").mkdir(parents=True)
    Path("dist/dpo", MANIFEST).write_text(json.dumps({"model": "dpo"}))
    for folder in ("dist/dpo", "elsewhere/dpo"):
        with pytest.raises(ParamsError, match="is the model that was named|is an export itself; name the model"):
            target.check(Path("dist/dpo"), Path(folder))


def test_what_git_tracks_is_kept_without_a_graph_too(project):
    Path("dvc.yaml").unlink()
    target.check(Path("models/dpo"), Path("dist/dpo"))
    with pytest.raises(ParamsError, match="notes/dpo: holds files that git tracks"):
        target.check(Path("models/dpo"), Path("notes/dpo"))


def test_without_a_graph_every_place_is_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target.check(Path("models/dpo"), Path("dist/dpo"))


def test_a_file_in_the_place_of_a_folder_is_told_when_it_is_made(project):
    with pytest.raises(ParamsError, match="README.md/dpo: cannot be written"), replacing(Path("README.md/dpo")):
        pass
    assert Path("README.md").read_text() == "mine"


def test_a_licence_is_an_identifier_of_the_hub():
    assert license_of("", None, None) == license_of(" ", None, None) == License()
    assert license_of("MIT", None, None) == License("mit")
    assert license_of("other", "mine", "https://x.org") == License("other", "mine", "https://x.org")
    assert {"apache-2.0", "cc-by-nc-4.0", "llama3.1", "unknown", "other"} <= LICENSES
    with pytest.raises(ParamsError, match="license apache2: no identifier of the hub; did you mean apache-2.0"):
        license_of("apache2", None, None)
    with pytest.raises(ParamsError, match="license zzzzzz: no identifier of the hub; for one that has none"):
        license_of("zzzzzz", None, None)
    with pytest.raises(ParamsError, match="license other: it needs --license-name"):
        license_of("other", None, None)


def test_the_command_says_so_before_anything_loads(project, monkeypatch):
    monkeypatch.setattr("sys.argv", ["export", "write", "models/dpo", "--license", "foo"])
    with pytest.raises(ParamsError, match="license foo"):
        main()
