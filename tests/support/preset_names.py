"""The presets that come with the project."""

from typing import get_args

import pytest
from project import ROOT

from rlhf_lib.data.load.params import COLUMNS
from rlhf_lib.data.prepare.params import Role

NOT_YET = pytest.mark.skipif(
    "test" not in get_args(Role) or "input" not in COLUMNS, reason="needs the role `test` and the column `input`"
)
PRESETS = [
    pytest.param(path.stem, marks=NOT_YET if path.stem == "puns" else ())
    for path in sorted((ROOT / "presets").glob("*.yaml"))
]
