"""params.schema.json is made from the dataclasses and comments, and takes and refuses what `check_all` does."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from preset_names import PRESETS
from project import DEMO, ROOT

from rlhf_lib import json_schema
from rlhf_lib.check.sections import SECTIONS, check_all
from rlhf_lib.common.schema import check
from rlhf_lib.common.yaml import ParamsError, load_yaml
from rlhf_lib.data.load.params import SourceParams
from rlhf_lib.data.prepare.params import MixtureParams
from rlhf_lib.preset import __main__ as preset

TEXT = DEMO.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def schema():
    return json.loads((ROOT / "params.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def shipped():
    return load_yaml(DEMO)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the commands read and write, where the test runs."""
    shutil.copy(DEMO, tmp_path / "params.yaml")
    shutil.copy(ROOT / "params.schema.json", tmp_path)
    for name in ("presets", "launch"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)


def run(command, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    command.main()


def fits(schema, params):
    return Draft202012Validator(schema).is_valid(params)


def holds(params):
    try:
        check_all(params)
    except ParamsError:
        return False
    return True


def changed(params, path, value):
    """`params` with one value changed, in place; `...` takes the key out."""
    *section, key = path
    mapping = params[section[0]] if section else params
    mapping[key] = value
    if value is ...:
        del mapping[key]
    return params


# ---- the file


def test_the_file_is_what_the_command_makes(folder, monkeypatch):
    run(json_schema, monkeypatch, "--check")
    committed = Path("params.schema.json").read_text(encoding="utf-8")
    Path("params.schema.json").unlink()
    run(json_schema, monkeypatch)
    assert Path("params.schema.json").read_text(encoding="utf-8") == committed
    Draft202012Validator.check_schema(json.loads(committed))


@pytest.mark.parametrize("change", [lambda file: file.unlink(), lambda file: file.write_text("{}")])
def test_an_old_or_missing_file_is_told_in_one_line_and_left_as_it_is(folder, monkeypatch, change):
    file = Path("params.schema.json")
    change(file)
    before = file.exists() and file.read_text()
    with pytest.raises(SystemExit) as error:
        run(json_schema, monkeypatch, "--check")
    assert error.value.code == "params.schema.json: not up to date; run python -m rlhf_lib.json_schema"
    assert (file.exists() and file.read_text()) == before


def test_params_yaml_names_the_schema_in_its_first_line():
    assert TEXT.splitlines()[0] == "# yaml-language-server: $schema=params.schema.json"


# ---- descriptions


def descriptions(schema, section):
    return {key: value["description"] for key, value in schema["properties"][section]["properties"].items()}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_of_every_section_has_a_description(name, schema, shipped):
    described = descriptions(schema, name)
    assert set(described) == set(shipped[name]) and all(described.values())


def test_policy_and_launch_have_a_description(schema):
    assert all(schema["properties"][name]["description"] for name in ("policy", "launch"))


def test_a_key_has_the_comment_above_it_or_else_that_of_the_first_of_its_name():
    lines = ["# head", "", "# one", "a: 1", "", "s:", "  # two", "  # lines", "  x: 1", "", "  y: 1"]
    lines += ["t:", "  x: 1", "  # of t", "  y: 1", "  z:  # behind", "  - 1", "  u: 'a #b' # a #b"]
    found = json_schema.comments("\n".join(lines))
    sections = {("", "a"): "one", ("", "s"): "", ("", "t"): ""}
    keys = {("s", "x"): "two lines", ("s", "y"): "", ("t", "x"): "", ("t", "y"): "of t"}
    keys |= {("t", "z"): "behind", ("t", "u"): "a #b"}
    assert found == sections | keys
    assert json_schema.description("t", "x", found) == "two lines"
    assert json_schema.description("t", "y", found) == "of t"
    with pytest.raises(ParamsError, match=r"^params.yaml: s.y: no comment here, nor where y first appears"):
        json_schema.description("s", "y", found)


def test_a_shared_key_has_the_words_of_its_section_where_it_means_something_else(schema):
    batches = [descriptions(schema, name)["per_device_train_batch_size"] for name in ("sft", "dpo", "ppo")]
    assert [text.split()[0] for text in batches] == ["rows", "pairs", "responses"]
    decays = {descriptions(schema, name)["adam_beta1"] for name in ("sft", "reward", "judge", "dpo", "ppo")}
    assert len(decays) == 1


def test_no_key_repeats_the_comment_that_it_would_have_anyway():
    found = json_schema.comments(TEXT)
    first = {key: (section, key) for section, key in reversed(found)}
    later = [place for place in found if found[place] and place != first[place[1]]]
    assert [place for place in later if found[place] == found[first[place[1]]]] == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fits_and_leaves_comments(name, folder, schema, monkeypatch):
    run(preset, monkeypatch, name)
    assert fits(schema, load_yaml(Path("params.yaml")))
    run(json_schema, monkeypatch, "--check")


# ---- what it takes and refuses


def test_the_shipped_params_are_taken(schema, shipped):
    assert fits(schema, shipped) and holds(shipped)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["policy"], "best"),
        (["policy"], ...),
        (["launch"], "sh"),
        (["launch"], "pythonic"),
        (["launch"], ["python"]),
        (["sft"], ...),
        (["sft"], None),
        (["sfd"], {}),
        (["sft", "learning_rate"], "fast"),
        (["sft", "learning_rate"], -1.0),
        (["sft", "learning_rat"], 1.0),
        (["sft", "seed"], ...),
        (["sft", "seed"], 0.5),
        (["sft", "seed"], True),
        (["sft", "lora_r"], 0),
        (["sft", "num_train_epochs"], 0),
        (["ppo", "kl_estimator"], "k4"),
        (["ppo", "reward_funcs"], []),
        (["ppo", "gamma"], 1.5),
        (["ppo", "cliprange"], None),
        (["evaluate", "temperatures"], [1.0, -0.5]),
        (["best_of_n", "n"], [2, 1]),
        (["load", "sources"], [{"path": "rows.jsonl"}]),
        (["load", "sources"], [{"reader": "hh", "pth": "rows.jsonl"}]),
        (["prepare", "mixture"], {"hh": {"roles": ["ppo"]}}),
        (["prepare", "mixture"], {"hh": {"wieght": 1}}),
    ],
)
def test_schema_and_check_refuse_the_same_faults(schema, shipped, path, value):
    params = changed(shipped, path, value)
    assert not fits(schema, params) and not holds(params)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["launch"], "accelerate launch --config_file launch/gpus.yaml --num_processes 1"),
        (["sft", "lora_r"], 8),
        (["sft", "learning_rate"], 1),
        (["load", "sources"], [{"reader": "file", "path": "rows.jsonl", "columns": {"prompt": "q"}, "max_records": 5}]),
        (["prepare", "mixture"], {"demo": {"roles": ["sft", "preference", "prompts"], "weight": 2}}),
    ],
)
def test_schema_and_check_take_the_same_settings(folder, schema, shipped, path, value):
    params = changed(shipped, path, value)
    assert fits(schema, params) and holds(params)


VALUES = [None, True, 0, 1, -1, 7, 300, 0.5, 1.5, -0.5, "x", "auto", "linear", [], ["sft"], [0.5], [2], [None], [[]]]
VALUES += [{}, {"a": 1}, {"a": {}}, {"a": {"roles": []}}, {"a": {"share": 0.5, "max_rows": None}}, {"a": {"share": 2}}]
VALUES += [[{"reader": "hh"}], [{"reader": "hh", "max_records": 0}], [{"reader": "hh", "columns": {"a": 1}}], [{}]]


def is_taken(name, params):
    try:
        check(SECTIONS[name], params, name)
    except ParamsError:
        return False
    return True


@pytest.mark.parametrize("name", SECTIONS)
def test_schema_and_check_agree_on_any_value_of_any_key(name, schema, shipped, monkeypatch):
    for section in (*SECTIONS.values(), SourceParams, MixtureParams):
        monkeypatch.setattr(section, "__post_init__", lambda self: None, raising=False)  # between keys: check only
    validators = {key: Draft202012Validator(value) for key, value in schema["properties"][name]["properties"].items()}
    for key, validator in validators.items():
        for value in VALUES:
            taken = is_taken(name, {**shipped[name], key: value})
            assert validator.is_valid(value) == taken, f"{name}.{key}: {value!r}"
