"""params.yaml is read as YAML 1.2, as DVC reads it."""

import math

import pytest
import yaml
from project import DEMO
from ruamel.yaml import YAML

from rlhf_lib.common.yaml import Loader


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
