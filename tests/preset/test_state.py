"""A preset is a whole: it starts from the demo, says what it drops, and drops no edit unasked."""

from __future__ import annotations

import itertools
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from project import DEMO, ROOT
from shipped_params import fault

from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.preset import __main__ as preset
from rlhf_lib.preset.state import Origin

TEXT = DEMO.read_text(encoding="utf-8")
PARAMS = Path("params.yaml")
FILES = sorted((ROOT / "presets").glob("*.yaml"))
PRESETS = [path.stem for path in FILES]
MIXED = [path.stem for path in FILES if "mixture:" in path.read_text(encoding="utf-8")]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where the command runs, and which is no git repository."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "presets", "presets")
    Path("launch").symlink_to(ROOT / "launch")
    shutil.copy(DEMO, PARAMS)
    return tmp_path


@pytest.fixture
def apply(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*words: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["preset", *words])
        preset.main()
        return capsys.readouterr().out.splitlines()

    return call


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    """The texts that `lay` has got."""
    return {}


@pytest.fixture
def lay(apply, written):
    """A function of a preset's name that makes params.yaml what the preset makes of the demo's, once for all tests."""

    def call(name: str) -> str:
        if name not in written:
            shutil.copy(DEMO, PARAMS)
            apply(name)
            written[name] = text()
        PARAMS.write_text(written[name], encoding="utf-8")
        return written[name]

    return call


def text() -> str:
    return PARAMS.read_text(encoding="utf-8")


def header() -> str:
    return text().splitlines()[1]


def edit(before: str, after: str) -> None:
    assert before in text()
    PARAMS.write_text(text().replace(before, after, 1), encoding="utf-8")


# ---- the demo


def test_params_yaml_ships_as_the_demo():
    """In a project whose params.yaml has other values this says nothing; CI holds the two to one another."""
    if load_yaml(ROOT / "params.yaml") != load_yaml(DEMO):
        pytest.skip("params.yaml is another preset, or was edited")
    assert (ROOT / "params.yaml").read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "smoke"])
def test_smoke_lies_over_every_other(apply, name):
    """Lengths, shares and batches of the preset below would not fit its few rows and small model."""
    apply(name, "smoke")
    assert header() == f"# preset: {name} smoke"


@pytest.mark.parametrize("name", PRESETS)
def test_demo_is_the_way_back(apply, lay, name):
    lay(name)
    assert text() != TEXT and header() == f"# preset: {name}"
    apply("demo")
    assert text() == TEXT


def test_demo_comes_first_or_alone(apply):
    apply("demo", "smoke")
    once = text()
    apply("smoke")
    assert text() == once
    assert "alone or first" in fault(apply, "smoke", "demo")


# ---- one after the other, and one over the other


@pytest.mark.parametrize(("first", "second"), itertools.pairwise([*PRESETS, PRESETS[0]]))
def test_a_preset_after_any_other_is_the_same_as_alone(apply, lay, first, second):
    alone = lay(second)
    lay(first)
    apply(second)
    assert text() == alone


@pytest.mark.parametrize("name", PRESETS)
def test_the_text_has_the_values(lay, name):
    lay(name)
    assert load_yaml(PARAMS) == Origin([name]).params()


def test_presets_lie_over_one_another_in_their_order(apply):
    Path("presets/one.yaml").write_text("# one\nsft: {seed: 1, lora_r: 4}\n")
    Path("presets/two.yaml").write_text("# two\nsft: {seed: 2}\ndpo: {seed: 2}\n")
    changed = apply("one", "two", "dpo.seed=3")
    assert changed == ["sft.seed: 0 -> 2", "sft.lora_r: null -> 4", "dpo.seed: 0 -> 3"]
    assert header() == "# preset: one two dpo.seed=3"
    apply("two", "one")
    params = load_yaml(PARAMS)
    assert (params["sft"]["seed"], params["sft"]["lora_r"], params["dpo"]["seed"]) == (1, 4, 2)


def test_settings_are_in_the_header_as_the_shell_takes_them(apply):
    setting = "load.sources=[{reader: file, path: it's here.csv, columns: {prompt: 'a b'}}]"
    apply("local", setting, "prepare.mixture.file.weight=2")
    assert shlex.split(header().removeprefix("# preset: ")) == ["local", setting, "prepare.mixture.file.weight=2"]
    assert load_yaml(PARAMS)["prepare"]["mixture"] == {"file": {"weight": 2}}
    assert apply()[-1] == "params.yaml is: " + header().removeprefix("# preset: ")
    assert apply("local", setting, "prepare.mixture.file.weight=2") == ["no value changed"]


def test_settings_alone_are_set_beside_what_is_there(apply):
    apply("smoke", "sft.seed=7", "dpo.seed=8")
    gone = "dropped: sft.seed=7 (given with smoke)"
    assert apply("sft.seed=9", "ppo.seed=1") == [gone, "sft.seed: 7 -> 9", "ppo.seed: 0 -> 1"]
    assert header() == "# preset: smoke dpo.seed=8 sft.seed=9 ppo.seed=1"
    edit("  kl_coef: 0.2", "  kl_coef: 0.5")
    assert "you changed ppo.kl_coef" in fault(apply, "sft.seed=3")


# ---- what is the user's own


def test_settings_that_go_are_said(apply):
    apply("smoke", "sft.seed=7", "dpo.seed=8")
    said = apply("smoke", "dpo.seed=8")
    assert said == ["dropped: sft.seed=7 (given with smoke)", "sft.seed: 7 -> 0"]


def test_an_edit_is_refused_unless_it_is_forced_or_kept(apply):
    apply("smoke")
    edit("  kl_coef: 0.2", "  kl_coef: 0.5")
    before = text()
    told = fault(apply, "local")
    assert told.startswith("params.yaml: you changed ppo.kl_coef (0.2 -> 0.5) since smoke; to keep a value, give it ")
    assert "(ppo.kl_coef=0.5)" in told and "--force" in told and text() == before
    apply("local", "ppo.kl_coef=0.5")
    assert load_yaml(PARAMS)["ppo"]["kl_coef"] == 0.5
    edit("  kl_coef: 0.5", "  kl_coef: 0.6")
    assert apply("local", "--force")[0] == "dropped: ppo.kl_coef=0.5 (given with local)"
    assert load_yaml(PARAMS)["ppo"]["kl_coef"] == 0.2


def test_a_value_that_was_taken_out_is_no_advice(apply):
    edit("  kl_coef: 0.2\n", "")
    told = fault(apply, "smoke")
    assert "you changed ppo.kl_coef (0.2 -> nothing) since demo; add --force" in told


def test_what_dvc_left_behind_is_an_edit_too(apply):
    apply_overrides(PARAMS, ["ppo.kl_coef=0.8"])
    assert apply()[-1] == "params.yaml is: demo, and edited since: ppo.kl_coef"
    assert "you changed ppo.kl_coef (0.2 -> 0.8) since demo" in fault(apply, "smoke")


def test_many_edits_are_counted(apply):
    apply_overrides(PARAMS, [f"{name}.seed=5" for name in ("load", "prepare", "base", "sft", "dpo")])
    told = fault(apply, "smoke")
    assert "load.seed (0 -> 5), prepare.seed (0 -> 5), base.seed (0 -> 5) and 2 more since demo" in told


def test_comments_of_the_user_are_not_dropped_unasked(apply):
    edit("policy: ppo\n", "# mine\npolicy: ppo\n")
    assert "'# mine'" in fault(apply, "smoke")
    assert apply("smoke", "--force", "ppo.seed=1")[0] == "dropped: # mine"
    assert load_yaml(PARAMS)["ppo"]["seed"] == 1


def test_an_edited_key_of_the_mixture_is_an_edit(apply):
    edit("mixture: {}", "mixture: {demo: {max_rows: 9}}")
    assert "prepare.mixture.demo.max_rows (nothing -> 9)" in fault(apply, "smoke")
    apply("smoke", "prepare.mixture.demo.max_rows=9")
    assert load_yaml(PARAMS)["prepare"]["mixture"] == {"demo": {"max_rows": 9}}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("policy: ppo", "policy: [ppo"),
        ("# preset: demo", "# preset: gone"),
        ("# preset: demo", "# preset: smoke 'sft.seed=1"),
        ("# preset: demo", "# preset: smoke sft.sead=1"),
    ],
)
def test_a_file_that_cannot_be_read_is_written_anew_only_by_force(apply, before, after):
    edit(before, after)
    assert "--force" in fault(apply, "smoke")
    assert "dropped: " in apply("smoke", "--force")[0]
    once = text()
    shutil.copy(DEMO, PARAMS)
    apply("smoke")
    assert text() == once


def test_a_file_from_before_there_was_a_header_counts_as_the_demo(apply):
    edit("# preset: demo\n", "")
    apply("demo")
    assert text() == TEXT


def test_a_missing_file_is_written(apply):
    PARAMS.unlink()
    apply("demo")
    assert text() == TEXT


@pytest.mark.parametrize(
    "words",
    [
        ["nosuch"],
        ["smoke", "sft.sead=1"],
        ["smoke", "sft.seed=-1"],
        ["smoke", "sft.seed=[1"],
        ["smoke", "sft.seed=1\n2"],
        ["smoke", "=1"],
        ["smoke", "prepare.mixture.nosuch.max_rows=5"],
    ],
)
def test_a_fault_is_one_line_and_changes_nothing(apply, words):
    fault(apply, *words)
    assert text() == TEXT


# ---- flags


@pytest.mark.parametrize("first", ["demo", *MIXED])
@pytest.mark.parametrize("second", ["demo", *PRESETS])
def test_flags_make_of_one_preset_another(apply, lay, first, second):
    lay(second)
    expected = load_yaml(PARAMS)
    before = lay(first)
    (flags,) = apply(second, "--flags")
    assert text() == before
    if words := shlex.split(flags):
        apply_overrides(PARAMS, words[1::2])
    assert load_yaml(PARAMS) == expected


def test_flags_are_refused_where_an_edit_would_go(apply):
    edit("  kl_coef: 0.2", "  kl_coef: 0.5")
    assert "--force" in fault(apply, "smoke", "--flags")
    assert "ppo.kl_coef=0.2" in apply("smoke", "--flags", "--force")[0]


def test_flags_need_a_file_that_holds(apply):
    edit("seed: 0", "seed: x")
    assert "params.yaml: load.seed: " in fault(apply, "smoke", "--flags", "--force")
    PARAMS.unlink()
    fault(apply, "smoke", "--flags")


def test_texts_that_look_like_numbers_stay_texts_in_flags(apply):
    setting = "load.sources=[{reader: file, path: '123', columns: {prompt: 'null', response: 'a,b'}}]"
    (flags,) = apply("demo", setting, "--flags")
    apply_overrides(PARAMS, shlex.split(flags)[1::2])
    columns = {"prompt": "null", "response": "a,b"}
    assert load_yaml(PARAMS)["load"]["sources"] == [{"reader": "file", "path": "123", "columns": columns}]
