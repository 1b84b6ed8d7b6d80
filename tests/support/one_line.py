"""Errors of one line."""

import pytest

from rlhf_lib.common.yaml import ParamsError


def told(call, *arguments, **options):
    """What the one-line error says."""
    with pytest.raises(ParamsError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)
