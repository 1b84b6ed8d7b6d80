"""The plan of stage kto."""

import pytest
from project import DEMO

from rlhf_lib.check.sections import valid_sections
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.data.lengths import Lengths
from rlhf_lib.plan import estimate


def plans(params):
    sections = valid_sections(params)
    return estimate.plans(sections, Lengths(sections["base"], sections["prepare"]))


def test_kto_is_planned_where_it_is_wanted(tmp_path, monkeypatch):
    """Its updates are those of SFT on as many rows; each answer is read for the KL too, and by the reference."""
    monkeypatch.chdir(tmp_path)  # where no stage has run
    params = load_yaml(DEMO)
    assert "kto" not in [planned.stage for planned in plans(params)]
    params["methods"]["kto"] = True
    same = ("max_length", "max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps")
    params["sft"]["eval_steps"] = params["kto"]["eval_steps"] = 1000
    params["kto"] |= {key: params["sft"][key] for key in same}
    of = {planned.stage: planned for planned in plans(params)}
    assert [phase.name for phase in of["kto"].phases] == ["update", "validation", "log-probs"]
    assert of["kto"].phases[0].parts == of["sft"].phases[0].parts and of["kto"].tokens == of["sft"].tokens
    # an update is 3 forward passes, the KL takes 1, and the reference 2 of all rows, once in so many epochs
    more = 1 + 2 / params["sft"]["num_train_epochs"]
    assert of["kto"].flops / of["sft"].flops == pytest.approx(1 + more / 3)
