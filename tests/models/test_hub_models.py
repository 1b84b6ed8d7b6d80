"""Models of the hub: the real `huggingface_hub` and `transformers`, in processes of their own, against a stand-in."""

import json

import pytest
import yaml
from hub_processes import COMMIT, start
from project import DEMO
from standin_hub import StandInHub

# stage `base`, then a model that is not there, then a reward model
MODELS = """
import json
from dataclasses import replace
from rlhf_lib.base.params import BaseParams
from rlhf_lib.common.schema import read
from stages import base as stage

stage.main()
from rlhf_lib.base import model as base
from rlhf_lib.ppo.rewards import RewardFunctions

try:
    base.pretrained(replace(read("base", BaseParams), model_name_or_path="o/nothing"))
except SystemExit as error:
    fault = str(error)
rewards = RewardFunctions.load(["o/reward@" + "a" * 40], None, normalize_rewards=True)
print(json.dumps([fault, rewards([[{"role": "user", "content": "Name the cat."}]], ["Cat."], {}).total]))
"""


# ---- models


def run_models(hub, root, name, **env):
    """The folder where stage `base` ran, and what the process printed at its end."""
    work = root / name
    work.mkdir()
    params = yaml.safe_load(DEMO.read_text())
    params["base"] |= {"model_name_or_path": "o/policy", "model_revision": COMMIT}
    (work / "params.yaml").write_text(yaml.safe_dump(params))
    process = start(hub, root / "home", "-c", MODELS, cwd=work, **env)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return work, *json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory):
    """From the hub, and then without one."""
    root = tmp_path_factory.mktemp("models")
    with StandInHub() as hub:
        hub.add("models", "o/policy", tiny.policy, COMMIT)
        hub.add("models", "o/reward", tiny.reward, COMMIT)
        online = run_models(hub, root, "online")
    return online, run_models(hub, root, "offline", HF_HUB_OFFLINE="1")


def test_a_model_of_the_hub_and_then_of_the_cache(models, tiny):
    for work, _, _ in models:
        written = work / "models/base/model.safetensors"
        assert written.read_bytes() == (tiny.policy / "model.safetensors").read_bytes()


def test_a_reward_model_of_the_hub_and_then_of_the_cache(models, tiny):
    from rlhf_lib.scoring.reward_model import RewardModel

    local = RewardModel.load(tiny.reward, normalize=False)([[{"role": "user", "content": "Name the cat."}]], ["Cat."])
    for _, _, rewards in models:
        assert rewards == pytest.approx(local, rel=1e-5)


def test_a_model_that_cannot_be_had_is_one_line(models):
    for _, fault, _ in models:
        assert fault.startswith("params.yaml: base.model_name_or_path: cannot load 'o/nothing': ")
        assert "\n" not in fault
