"""Packages of optimizers and of weights of few bits, which the project does not install."""

from typing import get_args

import pytest
from checked import told
from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments

from rlhf_lib.check import packages
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.training import optimizer_check
from rlhf_lib.training.optimizers import Optimizer


@pytest.fixture(scope="module")
def model():
    sizes = {"n_layer": 1, "n_embd": 8, "n_head": 2, "vocab_size": 16, "n_positions": 8}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_a_package_is_missing_where_transformers_refuses_the_optimizer(tmp_path, model, optimizer):
    arguments = TrainingArguments(output_dir=str(tmp_path), optim=optimizer, use_cpu=True, report_to=[])
    try:
        optimizer_check.check("sft", arguments, model)
    except ParamsError:
        assert packages.missing(optimizer) is not None
    else:
        assert packages.missing(optimizer) is None


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"ppo.optim": "adamw_8bit"},
            ["ppo.optim: adamw_8bit needs bitsandbytes; pip install bitsandbytes, or set it to adamw_torch_fused"],
        ),
        (
            {"dpo.lora_r": 8, "dpo.load_in_4bit": True},
            ["dpo.load_in_4bit: needs bitsandbytes; pip install bitsandbytes, or set it to false"],
        ),
        ({"kto.optim": "adamw_8bit"}, []),  # kto is not wanted
        (
            {"rft.optim": "lomo", "methods.rft": True},
            ["rft.optim: lomo needs lomo-optim; pip install lomo-optim, or set"],
        ),
    ],
)
def test_a_missing_package_is_told_of_what_is_wanted(monkeypatch, changes, expected):
    monkeypatch.setattr(packages, "find_spec", lambda module: None)
    found = told(changes)
    assert len(found) == len(expected) and all(
        line.startswith(start) for line, start in zip(found, expected, strict=True)
    )
