"""The table of features in docs/coming-from.md: the params and files that it names are there."""

import dataclasses
import re
from pathlib import Path
from typing import get_args

import pytest
from doc_pages import prose
from project import ROOT
from shipped_params import check

from rlhf_lib.check.sections import SECTIONS
from rlhf_lib.common.yaml import parse_value
from rlhf_lib.data.load.params import ReaderName, SourceParams
from rlhf_lib.data.prepare.params import MixtureParams

TABLE = prose(Path("docs/coming-from.md")).partition("\n## Features\n")[2]
ROWS = [line.strip("| ").split(" | ") for line in TABLE.splitlines() if line.startswith("| ")][1:]
KEYS = {name: {field.name for field in dataclasses.fields(section)} for name, section in SECTIONS.items()}
OPTIONS = {field.name for part in (SourceParams, MixtureParams) for field in dataclasses.fields(part)}
METRICS = {"sign_accuracy", "mse", "learning_rate"}
COMMAND = re.compile(r"(dvc|make|hf|python|-S) ?\S*")


def is_there(name: str) -> bool:
    """Whether a name, with or without a value after a colon, is a section, a key, an option, a reader, a preset or a
    stage."""
    name = name.partition(": ")[0]
    if name in SECTIONS or name in get_args(ReaderName) or (ROOT / f"presets/{name}.yaml").is_file():
        return True
    section, _, key = name.rpartition(".")
    if section:
        return key in KEYS.get(section, ())
    choices = {"mae", "CUDA_VISIBLE_DEVICES", "launch", *METRICS, *OPTIONS}
    return name in choices or any(name in keys for keys in KEYS.values())


def test_most_features_are_there():
    answers = [answer.partition(",")[0] for _, answer, _ in ROWS]
    assert set(answers) == {"yes", "partly", "no"} and len(ROWS) == 95
    assert answers.count("yes") >= 88
    assert all(why for _, _, why in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_what_a_feature_names_is_there(row):
    named = [name for name in re.findall(r"`([^`]+)`", row[2]) if not COMMAND.match(name)]
    assert [name for name in named if not is_there(name)] == []
    files = re.findall(r"(?<![(\w])((?:metrics|data|rlhf_lib)/[\w./*-]+\w)", row[2])
    outs = prose(Path("dvc.yaml"))
    assert [name for name in files if name.split("*")[0] not in outs and not (ROOT / name).exists()] == []


@pytest.mark.parametrize(("section", "key", "value"), re.findall(r"`(\w+)\.(\w+): (\w+)`", TABLE))
def test_a_value_that_is_named_is_taken(section, key, value):
    change = {key: parse_value(value)} | ({"bounded": False} if key == "loss_type" and section == "reward" else {})
    check(section, change)
