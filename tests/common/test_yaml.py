"""params.yaml is read as YAML 1.2, as DVC reads it."""

import math
import os

import pytest
import yaml
from one_line import told
from project import DEMO
from ruamel.yaml import YAML

from rlhf_lib.common.yaml import Loader, load_yaml


def parse(text):
    return yaml.load(text, Loader)  # noqa: S506 -- a SafeLoader


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-05", 2e-05),
        ("1e-4", 1e-4),
        ("1.0e-3", 1e-3),
        ("1E-3", 1e-3),
        ("+2e3", 2000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.5", -0.5),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("12", 12),
        ("'1e-5'", "1e-5"),
        (".inf", math.inf),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text, value):
    got = parse(f"key: {text}")["key"]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "2e-05",
        "1e-4",
        "1.0e-3",
        ".5",
        "5.",
        "-.5",
        "+2e3",
        "1e5",
        "1E-3",
        "1e",
        "e5",
        "1.2.3",
        "1_000",
        "-1",
        "+1",
        "0",
        "0.0",
        "-0",
        "017",
        "08",
        "09.5",
        "0o17",
        "0x1F",
        "1:30",
        "12e03",
        ".",
        "-.",
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "true",
        "True",
        "TRUE",
        "false",
        "null",
        "Null",
        "~",
        ".inf",
        "-.inf",
        "+",
        "2001-01-01",
        "demo",
        "k1",
        "0123456",
    ],
)
def test_scalars_are_read_as_dvc_reads_them(text):
    ours, theirs = parse(f"key: {text}")["key"], YAML(typ="safe").load(f"key: {text}")["key"]
    assert ours == theirs and type(ours) is type(theirs)


def test_params_yaml_is_read_as_dvc_reads_it():
    text = DEMO.read_text(encoding="utf-8")
    assert parse(text) == YAML(typ="safe").load(text)


# ---- files that hold what no file of params holds


def merging(levels, times):
    """Mappings each of which merges the one before several times."""
    lines = ["m0: &m0 {k: 1}"]
    lines += [f"m{n}: &m{n} {{<<: [{', '.join([f'*m{n - 1}'] * times)}]}}" for n in range(1, levels)]
    return "\n".join(lines)


MARK = "a mark of git's merge; keep one side, without the marks"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (merging(60, 2), "not valid YAML: the block at line 15 merges too much (<<); write it out"),
        (merging(2, 101), "not valid YAML: the block at line 2 merges too much (<<); write it out"),
        ("a: !!float ''", "not valid YAML: IndexError: string index out of range"),
        ("a: !!bool x", "not valid YAML: KeyError: 'x'"),
        ("a: !!timestamp x", "not valid YAML: AttributeError: 'NoneType' object has no attribute 'groupdict'"),
        ("a: " + "x" * 1_000_000, "is larger than 1,000,000 bytes; remove what is no param"),
        ("b:\n  a: 1\n  b: 2\n  a: 3", "not valid YAML: a stands twice in the block at line 2; remove one"),
        ("a: " + "[" * 5000, "not valid YAML: nested too deeply; remove the brackets or indents"),
        ("a: 1\n<<<<<<< HEAD\nb: 2\n=======\nb: 3\n>>>>>>> other\n", f"line 2: {MARK}"),
        ("a: 1\r\nb: 2\r\n=======\r\nb: 3\r\n", f"line 3: {MARK}"),
    ],
)
def test_a_text_that_cannot_be_meant_is_told_in_one_line(text, expected, tmp_path):
    (tmp_path / "p.yaml").write_text(text)
    assert told(load_yaml, tmp_path / "p.yaml") == f"{tmp_path / 'p.yaml'}: {expected}"


def test_merges_and_many_keys_are_taken(tmp_path):
    (tmp_path / "p.yaml").write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n")
    assert load_yaml(tmp_path / "p.yaml")["b"] == {"x": 1, "y": 3}
    (tmp_path / "p.yaml").write_text("".join(f"k{n}: {n}\n" for n in range(20_000)))
    assert len(load_yaml(tmp_path / "p.yaml")) == 20_000


def test_what_is_no_regular_file_is_told_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "zero", "folder"):
        assert told(load_yaml, tmp_path / name) == f"{tmp_path / name}: is no regular file; put one in its place"
    (tmp_path / "bytes").write_bytes("a: 1".encode("utf-16"))
    said = told(load_yaml, tmp_path / "bytes")
    assert said.startswith(f"{tmp_path / 'bytes'}: cannot be read: 'utf-8' codec") and said.endswith(
        "; save it as UTF-8"
    )
