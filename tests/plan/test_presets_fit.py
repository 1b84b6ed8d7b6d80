"""What `make plan` counts for each preset is within the GPU that docs/presets.md names for it, with room to err."""

import re
from pathlib import Path

import pytest
from preset_names import PRESETS
from project import DEMO, ROOT
from real_configs import CONFIGS

from rlhf_lib.check.sections import valid_sections
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.data.lengths import Lengths
from rlhf_lib.plan import estimate
from rlhf_lib.plan.device import Device
from rlhf_lib.preset import overlay

ROW = re.compile(r"^\| `([\w.-]+)` \|.*\| one GPU of (\d+) GB \|$", re.M)
GPUS = {name: int(size) for name, size in ROW.findall((ROOT / "docs/presets.md").read_text(encoding="utf-8"))}
ERROR = 1.2  # the most by which a measured peak was above the plan (benchmarks/README.md)
LAPTOP = {"smoke", "local", "arithmetic", "smollm2-135m"}


def local(model):
    """The directory, made here, of the config of a hub model."""
    name = model.partition("@")[0]
    folder = Path(name.rpartition("/")[2])
    CONFIGS[name].save_pretrained(folder)
    return f"./{folder}"


def planned(name):
    params = load_yaml(DEMO)
    overlay.overlay(params, list(overlay.leaves(load_yaml(ROOT / f"presets/{name}.yaml"))), name)
    params["base"] |= {"model_name_or_path": local(params["base"]["model_name_or_path"]), "model_revision": None}
    for section in ("reward", "judge"):
        if "@" in params[section]["model_name_or_path"]:
            params[section]["model_name_or_path"] = local(params[section]["model_name_or_path"])
    sections = valid_sections(params)
    lengths = Lengths(sections["base"], sections["prepare"])
    return estimate.plans(sections, lengths, Device.gpu(GPUS[name], sections["compute"].precision))


def test_every_preset_names_a_gpu_or_a_cpu():
    assert {*GPUS, *LAPTOP} == {*PRESETS}


@pytest.mark.parametrize("name", sorted(GPUS))
def test_no_stage_exceeds_the_gpu_that_the_page_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    total = {
        (stage.stage, phase.name, phase.param): ERROR * phase.parts.total / 1e9
        for stage in planned(name)
        for phase in stage.phases
    }
    assert {place: round(size, 1) for place, size in total.items() if size > GPUS[name]} == {}
