"""Values of params as `dvc exp run -S` takes them."""

import pytest
from dvc.utils.hydra import to_hydra_overrides

from rlhf_lib.preset.overlay import hydra


@pytest.mark.parametrize(
    "text", [r"\bfoo\b", "\\", "\\'", "it's", "é", "...", "*a", "-", "nan", "Inf", "off", "1e5", "${x}", ""]
)
def test_any_text_is_itself_behind_a_flag(text):
    (override,) = to_hydra_overrides([f"a={hydra([text])}"])
    assert override.value() == [text]
