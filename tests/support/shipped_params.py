"""The params that ship, with some values changed, and what is told of a fault."""

import pytest
from project import DEMO as PARAMS

from rlhf_lib.check.sections import SECTIONS, valid_sections
from rlhf_lib.common import schema


def shipped():
    return schema.load_yaml(PARAMS)


def section(name, changes):
    """The shipped section with some values changed; `...` takes the key out."""
    return {key: value for key, value in {**shipped()[name], **changes}.items() if value is not ...}


def sections(**changes):
    """The demo's sections with other values, such as ppo={"response_length": 9}."""
    params = shipped()
    for name, values in changes.items():
        params[name] |= values
    return valid_sections(params)


def fault(call, *arguments):
    """The text of the ParamsError that `call` raises; it must be one line and end the process with code 1."""
    with pytest.raises(schema.ParamsError) as error:
        call(*arguments)
    text = error.value.code
    assert isinstance(text, str) and len(text.splitlines()) == 1, text  # a str as code: exit status 1
    return text


def check(name, changes):
    return schema.check(SECTIONS[name], section(name, changes), name)


def check_fault(name, changes):
    return fault(check, name, changes)
