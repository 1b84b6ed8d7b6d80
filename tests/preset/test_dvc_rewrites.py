"""DVC rewrites params.yaml for `dvc exp run -S`: only the lines of the values that are set may change."""

from __future__ import annotations

import dataclasses
import difflib
import shutil
import sys
import typing
from pathlib import Path

import pytest
from copied_project import run
from dvc.utils.hydra import apply_overrides
from project import DEMO, ROOT

from rlhf_lib.check.sections import SECTIONS
from rlhf_lib.common.yaml import load_yaml, parse_yaml
from rlhf_lib.preset import __main__ as preset

TEXT = DEMO.read_text(encoding="utf-8")
PRESETS = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))


def list_fields():
    """The names of all params that take a list."""
    for section, fields in SECTIONS.items():
        for field in dataclasses.fields(fields):
            hint = typing.get_type_hints(fields)[field.name]
            if list in {hint, typing.get_origin(hint), *map(typing.get_origin, typing.get_args(hint))}:
                yield f"{section}.{field.name}"


LISTS = list(list_fields())


def rewritten(text: str, *overrides: str) -> str:
    """What DVC makes of a params.yaml, one rewriting for each `-S`."""
    file = Path("params.yaml")
    file.write_text(text, encoding="utf-8")
    for override in overrides:
        apply_overrides(file, [override])
    return file.read_text(encoding="utf-8")


def changed_lines(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("presets").symlink_to(ROOT / "presets")
    Path("launch").symlink_to(ROOT / "launch")
    shutil.copy(DEMO, "params.yaml")
    return tmp_path


def test_only_the_line_of_a_value_changes():
    assert changed_lines(TEXT, rewritten(TEXT, "policy=dpo")) == ["-policy: ppo", "+policy: dpo"]
    assert changed_lines(TEXT, rewritten(TEXT, "ppo.kl_coef=0.8")) == ["-  kl_coef: 0.2", "+  kl_coef: 0.8"]
    after = rewritten(TEXT, "reward.lora_r=8")
    assert changed_lines(TEXT, after) == ["-  lora_r:", "+  lora_r: 8"]
    assert rewritten(after, "reward.lora_r=null") == TEXT


def test_a_source_or_a_mixture_that_is_set_changes_only_its_lines():
    after = rewritten(TEXT, "load.sources=[{reader: file, path: a.csv, columns: {prompt: q}}]", "policy=dpo")
    added = ["+  - reader: file", "+    path: a.csv", "+    columns:", "+      prompt: q"]
    assert changed_lines(TEXT, after) == ["-policy: ppo", "+policy: dpo", "-  - reader: demo", *added]
    after = rewritten(TEXT, "+prepare.mixture.demo.max_rows=9", "policy=dpo", "policy=ppo")
    assert changed_lines(TEXT, after) == ["-  mixture: {}", "+  mixture:", "+    demo:", "+      max_rows: 9"]


def test_the_params_that_take_lists_are_found():
    assert {"load.sources", "sft.freeze", "dpo.lora_target_modules", "ppo.reward_funcs", "best_of_n.n"} <= set(LISTS)


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_is_set_changes_no_other_line_however_often_dvc_rewrites(name: str):
    section, key = name.split(".")
    number = TEXT.splitlines().index(f"{section}:")
    lines = TEXT.splitlines()
    place = next(i for i in range(number, len(lines)) if lines[i].startswith(f"  {key}:"))
    items = (
        next(i for i in range(place + 1, len(lines) + 1) if i == len(lines) or not lines[i].startswith("  -")) - place
    )
    after = rewritten(TEXT, f"{name}=[{{a: 1}}, 2]")
    _, _, comment = lines[place].partition("  #")
    assert not comment, "a comment behind the key of a list would stand before its items: put it above the key"
    expected = [*lines[:place], f"  {key}:", "  - a: 1", "  - 2", *lines[place + items :]]
    for text in (after, rewritten(after, "policy=ppo")):  # as the second is the first, so are all that follow
        assert text.splitlines() == expected, (
            "no comment and no blank line may follow a list: DVC loses it; put it behind the next value"
        )


@pytest.mark.parametrize("name", PRESETS)
def test_what_a_preset_writes_survives_too(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["preset", name])
    preset.main()
    text = Path("params.yaml").read_text(encoding="utf-8")
    assert rewritten(text, "policy=ppo") == text
    assert [line for line in comment_lines(TEXT) if line not in comment_lines(text)] == ["# preset: demo"]


def comment_lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip().startswith("#")]


def test_the_values_are_those_that_dvc_reads():
    assert parse_yaml(rewritten(TEXT, "policy=ppo"), Path("params.yaml")) == load_yaml(DEMO)


@pytest.mark.slow
def test_an_experiment_keeps_the_comments_and_leaves_the_workspace(folder: Path):
    """A real `dvc exp run` of one light stage: `--temp` leaves all as it was, and without it one line differs."""
    stage = ["  show:", "    cmd: cp params.yaml seen.yaml", "    params: [ppo]", "    outs: [seen.yaml]"]
    (folder / "dvc.yaml").write_text("\n".join(["stages:", *stage, ""]))
    for name in ("presets", "launch"):
        (folder / name).unlink()
    (folder / ".gitignore").write_text("/seen.yaml\n")
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "-m", "first")
    run(folder, "dvc", "repro")
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-q", "-m", "first run")
    settings = ["-S", "ppo.kl_coef=0.8", "-S", "ppo.reward_funcs=[models/reward,rewards.examples:brevity]"]
    run(folder, "dvc", "exp", "run", "--temp", "-n", "one", *settings)
    assert run(folder, "git", "status", "--porcelain") == ""
    assert Path("params.yaml").read_text(encoding="utf-8") == TEXT
    expected = ["+  - rewards.examples:brevity", "-  kl_coef: 0.2", "+  kl_coef: 0.8"]
    run(folder, "dvc", "exp", "apply", "one")
    assert changed_lines(TEXT, Path("params.yaml").read_text(encoding="utf-8")) == expected
    run(folder, "dvc", "exp", "run", "-n", "two", "-S", "policy=dpo")
    after = Path("params.yaml").read_text(encoding="utf-8")
    assert changed_lines(TEXT, after) == ["-policy: ppo", "+policy: dpo", *expected]
