"""What params name by path, and the manifests of it."""

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from project import ROOT
from shipped_params import shipped

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.inputs import manifest
from rlhf_lib.inputs.files import files, nothing
from rlhf_lib.inputs.named import STAGES, Named, by_stage


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


def lay(folder, contents):
    """Write files, {path: text}."""
    for name, text in contents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def params(**sections):
    """The shipped params with some values changed."""
    made = shipped()
    for name, values in sections.items():
        made[name] = {**made[name], **values} if isinstance(values, dict) else values
    return made


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """An empty project of git and DVC."""
    folder = tmp_path_factory.mktemp("empty")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        subprocess.run(command, cwd=folder, check=True)
    return folder


@pytest.fixture
def project(empty, tmp_path, monkeypatch):
    """A copy of the empty project, in which the tests stand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return shutil.copytree(empty, tmp_path, dirs_exist_ok=True)


def written(**sections):
    """The manifests of all stages that are not empty."""
    manifest.write(params(**sections))
    found = {stage: json.loads(Path(f"data/inputs/{stage}.json").read_text()) for stage in STAGES}
    return {stage: hashes for stage, hashes in found.items() if hashes}


def test_the_demo_names_no_file(project):
    assert written() == {}


def test_each_stage_has_the_hashes_of_what_it_reads(project):
    lay(project, {"rows.csv": "a", "models_of_mine/config.json": "b", "tok/tokenizer.json": "c", "r.md": "d"})
    found = written(
        load={"sources": [{"reader": "demo"}, {"reader": "file", "path": "rows.csv"}]},
        prepare={"tokenizer_name_or_path": "tok"},
        base={"model_name_or_path": "./models_of_mine"},
        judge={"model_name_or_path": f"{project}/models_of_mine"},
        ppo={"reward_funcs": ["models/reward", "models_of_mine"]},
        llm_judge={"rubric": "r.md", "base_url": "http://127.0.0.1/v1", "model": "m"},
    )
    assert found == {
        "load": {"rows.csv": md5("a")},
        "prepare": {"tok/tokenizer.json": md5("c")},
        "base": {"./models_of_mine/config.json": md5("b")},
        "judge": {f"{project}/models_of_mine/config.json": md5("b")},
        **{stage: {"models_of_mine/config.json": md5("b")} for stage in ("ppo", "attainable", "attained")},
        "llm_judge": {"r.md": md5("d")},
    }


def test_a_glob_is_the_files_that_match_now(project):
    lay(project, {"a/1.jsonl": "x", "a/2.jsonl": "y", "a/b/3.jsonl": "z", "a/4.csv": "w"})
    source = {"load": {"sources": [{"reader": "file", "path": "a/*.jsonl"}]}}
    assert written(**source) == {"load": {"a/1.jsonl": md5("x"), "a/2.jsonl": md5("y")}}
    lay(project, {"a/0.jsonl": "v"})
    assert set(written(**source)["load"]) == {"a/0.jsonl", "a/1.jsonl", "a/2.jsonl"}
    source["load"]["sources"][0]["path"] = "a/**/*.jsonl"
    assert set(written(**source)["load"]) == {"a/0.jsonl", "a/1.jsonl", "a/2.jsonl", "a/b/3.jsonl"}


def test_a_file_whose_name_looks_like_a_glob_is_that_file(project):
    (project / "[x].csv").write_text("a")
    (project / "x.csv").write_text("b")
    assert files(Named("p", "[x].csv", "files"), project) == ["[x].csv"]


def test_a_glob_through_everything_is_told_and_not_followed(project):
    lay(project, {"a/b/1.jsonl": "x"})
    for pattern, why in (
        ("/**/*.jsonl", "looks through the whole disk; name the folder in which '**' begins"),
        ("**/a/**/*.jsonl", "'**' matches folders of any depth, and stands there more than once; keep one"),
    ):
        assert files(Named("p", pattern, "files"), project) == []
        assert nothing(pattern) == why
    assert files(Named("p", f"{project}/**/*.jsonl", "files"), project) == [f"{project}/a/b/1.jsonl"]


def test_links_that_lead_round_are_followed_once(project):
    lay(project, {"m/config.json": "{}", "m/sub/x.json": "{}"})
    for number in range(20):
        (project / f"m/sub/back{number}").symlink_to(project / "m")
    assert files(Named("p", "m", "folder"), project) == ["m/config.json", "m/sub/x.json"]


def test_an_edit_and_a_swap_change_the_hashes(project):
    lay(project, {"a.csv": "one", "b.csv": "two"})
    sources = [{"reader": "file", "name": name, "path": f"{name}.csv"} for name in "ab"]
    before = written(load={"sources": sources})
    (project / "a.csv").write_text("onE")
    assert written(load={"sources": sources})["load"] == {"a.csv": md5("onE"), "b.csv": md5("two")}
    (project / "a.csv").write_text("one")
    assert written(load={"sources": sources}) == before
    os.rename("a.csv", "c.csv")
    os.rename("b.csv", "a.csv")
    os.rename("c.csv", "b.csv")
    assert written(load={"sources": sources})["load"] == {"a.csv": md5("two"), "b.csv": md5("one")}


def test_the_modules_of_a_reward_are_those_of_the_project_that_it_imports(project):
    lay(
        project,
        {
            "rewards/mine.py": "import json\nfrom helper import x\nfrom . import words\n",
            "rewards/words.py": "def f():\n    from tools.count import number\n",
            "rewards/list.txt": "a",
            "rewards/__pycache__/mine.pyc": "no",
            "rewards/.hidden": "no",
            "helper.py": "import tools.other\n",
            "tools/count.py": "number = 1\n",
            "tools/other.py": "",
            "tools/unused.py": "",
            "json_of_mine.py": "",
        },
    )
    found = files(Named("p", "rewards.mine", "module"), project)
    of_package = ["rewards/list.txt", "rewards/mine.py", "rewards/words.py"]
    assert found == ["helper.py", *of_package, "tools/count.py", "tools/other.py"]
    assert files(Named("p", "helper", "module"), project) == ["helper.py", "tools/other.py"]
    assert files(Named("p", "math", "module"), project) == []


def test_packages_are_watched_with_what_they_import_of_themselves(project):
    lay(
        project,
        {
            "rewards/mine.py": "import helper\nfrom tools.text.words import count\n",
            "helper/__init__.py": "from .core import score\nfrom . import lists\n",
            "helper/core.py": "from .deep import lists\n",
            "helper/deep/lists.py": "from ..shared import x\n",
            "helper/lists.py": "",
            "helper/shared.py": "",
            "helper/unused.py": "",
            "helper.py": "",  # Python takes the folder
            "core.py": "",
            "tools/__init__.py": "",
            "tools/text/__init__.py": "",
            "tools/text/words.py": "",
            "tools/text/unused.py": "",
        },
    )
    of_helper = ["__init__.py", "core.py", "deep/lists.py", "lists.py", "shared.py"]
    of_tools = ["__init__.py", "text/__init__.py", "text/words.py"]
    expected = [*(f"helper/{file}" for file in of_helper), "rewards/mine.py", *(f"tools/{file}" for file in of_tools)]
    assert files(Named("p", "rewards.mine", "module"), project) == expected


def test_a_module_that_is_no_python_is_a_file_all_the_same(project):
    lay(project, {"mine.py": "def f(:\n", "deep.py": f"x = {'-' * 90_000}1\n"})
    assert files(Named("p", "deep", "module"), project) == ["deep.py"]
    assert files(Named("p", "mine", "module"), project) == ["mine.py"]


def test_the_shipped_examples_bring_the_code_that_they_import():
    assert "rlhf_lib/demo/gold.py" in files(Named("p", "rewards.examples", "module"), ROOT)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"load": {"sources": [{"reader": "file", "path": "no.csv"}]}}, "load.sources[0].path: no.csv: no such file"),
        (
            {"load": {"sources": [{"reader": "file", "path": "no*.csv"}]}},
            "load.sources[0].path: no*.csv: no file matches",
        ),
        (
            {"load": {"sources": [{"reader": "file", "path": "d"}]}},
            "load.sources[0].path: d: is a folder; name its files",
        ),
        ({"load": {"sources": [{"reader": "file", "path": "l"}]}}, "load.sources[0].path: l: a link to gone, which"),
        ({"base": {"model_name_or_path": "./no"}}, "base.model_name_or_path: ./no: no files"),
        ({"ppo": {"reward_funcs": ["rewards/no"]}}, "ppo.reward_funcs: rewards/no: no files"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(project, sections, told):
    lay(project, {"d/a.csv": "a"})
    Path("l").symlink_to("gone")
    with pytest.raises(ParamsError) as error:
        manifest.write(params(**sections))
    assert str(error.value).startswith(f"params.yaml: {told}") and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["models/sft", "./models/sft", "models/sft/", "models/../models/sft"])
def test_what_stages_write_is_none_however_it_is_spelled(project, name):
    lay(project, {"models/sft/config.json": "a", "models/reward/config.json": "b"})
    reward = name.replace("sft", "reward")
    assert written(reward={"model_name_or_path": name}, ppo={"reward_funcs": [reward]}) == {}


def test_a_hub_model_is_no_file_and_a_folder_of_its_name_is(project):
    sections = {"base": {"model_name_or_path": "owner/name"}}
    assert by_stage(params(**sections), project)["base"] == []
    lay(project, {"owner/name/config.json": "a"})
    assert written(**sections) == {"base": {"owner/name/config.json": md5("a")}}


def test_the_launch_file_is_an_input_of_all_that_it_launches(project):
    lay(project, {"launch/two.yaml": "num_processes: 2"})
    found = by_stage(params(launch="accelerate launch --config_file launch/two.yaml"), project)
    with_it = {stage for stage, named in found.items() if Named("launch", "launch/two.yaml", "files") in named}
    declared = (ROOT / "dvc.yaml").read_text()
    assert with_it == {stage for stage in STAGES if f"${{launch}} -m stages.{stage}" in declared}


def test_words_of_the_launch_command_that_are_no_files_are_none(project):
    lay(project, {"launch/two.yaml": "num_processes: 2"})
    words = "accelerate launch --config_file=launch/two.yaml --log_dir logs/here --rdzv_endpoint host/x"
    assert by_stage(params(launch=words), project)["sft"] == [Named("launch", "launch/two.yaml", "files")]


def test_a_file_outside_of_the_project_is_told_in_a_copy(project, monkeypatch):
    lay(project, {"top/copy/x": "", "rows.csv": "a"})
    monkeypatch.chdir(project / "top/copy")
    monkeypatch.setenv("DVC_ROOT", str(project / "top"))
    with pytest.raises(ParamsError) as error:
        manifest.write(params(load={"sources": [{"reader": "file", "path": "../rows.csv"}]}))
    assert str(error.value) == (
        "params.yaml: load.sources[0].path: ../rows.csv: lies outside of the project, of which this is a copy; give "
        "its whole path, from /"
    )
    assert not (project / "top/rows.csv").exists()


def test_a_copy_of_the_project_gets_links_to_what_git_does_not_track(project, monkeypatch):
    lay(project, {"d/kept.csv": "a", "d/dropped.csv": "b"})
    subprocess.run(["git", "add", "d"], check=True)
    lay(project, {"d/mine.csv": "c", "m/config.json": "d"})
    copy = project / "copy"
    lay(copy, {"d/kept.csv": "a, as the experiment has it"})
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(project))
    sections = {
        "load": {"sources": [{"reader": "file", "path": "d/*.csv"}]},
        "base": {"model_name_or_path": "m"},
    }
    assert written(**sections) == {
        "load": {"d/kept.csv": md5("a, as the experiment has it"), "d/mine.csv": md5("c")},
        "base": {"m/config.json": md5("d")},
    }
    assert (copy / "d/mine.csv").read_text() == "c" and (copy / "m/config.json").read_text() == "d"
    assert not (copy / "d/dropped.csv").exists()


def test_the_report_reads_what_make_lm_eval_wrote_where_that_is_there(project):
    assert "report" not in written()
    lay(project, {"metrics/lm_eval.json": "{}\n"})
    assert written()["report"] == {"metrics/lm_eval.json": md5("{}\n")}
