"""Models of the hub: the real `huggingface_hub` and `transformers`, in processes of their own, against a stand-in."""

import json
import shutil

import pytest
import yaml
from hub_processes import COMMIT, start
from peft import LoraConfig, get_peft_model
from project import DEMO
from standin_hub import StandInHub
from transformers import AutoModelForCausalLM

from rlhf_lib.common.rows import write_jsonl

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

faults = []
for name in ("o/nothing", "o/pickles", "o/remote", "o/adapters"):
    try:
        base.pretrained(replace(read("base", BaseParams), model_name_or_path=name))
    except SystemExit as error:
        faults.append(str(error))
rewards = RewardFunctions.load(["o/reward@" + "a" * 40], None, normalize_rewards=True)
print(json.dumps([faults, rewards([[{"role": "user", "content": "Name the cat."}]], ["Cat."], {}).total]))
"""


# ---- models


def run_models(hub, root, name, **env):
    """The folder where stage `base` ran, and what the process printed at its end."""
    work = root / name
    work.mkdir()
    params = yaml.safe_load(DEMO.read_text())
    params["base"] |= {"model_name_or_path": "o/policy", "model_revision": COMMIT}
    (work / "params.yaml").write_text(yaml.safe_dump(params))
    answer = [{"role": "assistant", "content": "Yes."}]
    row = {"id": "0", "prompt": [{"role": "user", "content": "Hi?"}], "completion": answer}
    write_jsonl(work / "data/splits/sft_train.jsonl", [row])
    process = start(hub, root / "home", "-c", MODELS, cwd=work, **env)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return work, *json.loads(out.splitlines()[-1])


def broken(policy, root):
    """Copies of a model: one with pickles alone, one that needs code of its own, one with adapters to another model."""
    folders = {name: root / name for name in ("pickles", "remote", "adapters")}
    for folder in folders.values():
        shutil.copytree(policy, folder)
    (folders["pickles"] / "model.safetensors").rename(folders["pickles"] / "pytorch_model.bin")
    config = folders["remote"] / "config.json"
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Model"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | own))
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(policy), LoraConfig(r=2, task_type="CAUSAL_LM"))
    adapted.peft_config["default"].base_model_name_or_path = "o/policy"
    adapted.save_pretrained(folders["adapters"])
    return folders


@pytest.fixture(scope="module")
def models(tiny, tmp_path_factory):
    """From the hub, and then without one."""
    root = tmp_path_factory.mktemp("models")
    with StandInHub() as hub:
        hub.add("models", "o/policy", tiny.policy, COMMIT)
        hub.add("models", "o/reward", tiny.reward, COMMIT)
        for name, folder in broken(tiny.policy, root).items():
            hub.add("models", f"o/{name}", folder, COMMIT)
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
    for _, faults, _ in models:
        for name, fault in zip(("nothing", "pickles", "remote", "adapters"), faults, strict=True):
            assert fault.startswith(f"params.yaml: base.model_name_or_path: cannot load 'o/{name}': ")
            assert "\n" not in fault
    _, (_, pickles, remote, adapters), _ = models[0]
    assert "no safetensors, only pickles" in pickles
    assert "needs code of its own, which is never run here" in remote
    assert "adapters to another model (adapter_config.json); merge them into that" in adapters
