"""Model directories that cannot be loaded, and the one line that says how to mend each."""

import json
import re
import shutil

import pytest
import torch
from one_line import told
from shipped_params import shipped
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from rlhf_lib import talk
from rlhf_lib.base import model as base
from rlhf_lib.base.params import BaseParams
from rlhf_lib.models import loading as models
from rlhf_lib.negatives import sampling as negatives
from rlhf_lib.negatives.params import NegativesParams
from rlhf_lib.ppo.rewards import RewardFunctions
from rlhf_lib.reward import base as reward_base
from rlhf_lib.reward.params import JudgeParams


def remove(*names):
    return lambda folder: [next(folder.glob(name)).unlink() for name in names]


def config(**changes):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def cut(name, share=0.5):
    def change(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return change


def pickled(folder):
    weights = folder / "model.safetensors"
    torch.save({}, folder / "pytorch_model.bin")
    weights.unlink()


def sharded(folder):
    model = models.load_policy(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    min(folder.glob("model-*.safetensors")).unlink()


def in_place_of_json(name):
    """A tokenizer as a file that another library reads."""

    def change(folder):
        (folder / "tokenizer.json").rename(folder / name)
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": "LlamaTokenizer"}))

    return change


def of_another_model(folder):
    tokenizer = models.load_tokenizer(folder)
    text = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = text["model"]["vocab"]
    vocabulary |= {f"more{i}": len(vocabulary) + i for i in range(40)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(text)), eos_token="<|end|>", pad_token="<|pad|>"
    ).save_pretrained(folder)


def not_finite(folder):
    model, tokenizer = models.load_policy(folder), models.load_tokenizer(folder)
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")
    models.save(model, tokenizer, folder)


REMOTE = {"auto_map": {"AutoConfig": "configuration_own.Own"}}
FAULTS = {
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), r"no tokenizer in it .*; copy the files"),
    "no vocabulary": (remove("tokenizer.json"), r"tokenizer"),
    "a SentencePiece": (
        in_place_of_json("tokenizer.model"),
        r"tokenizer cannot be read \(.*\); give it a tokenizer.json",
    ),
    "tekken": (
        in_place_of_json("tekken.json"),
        r"its tokenizer, tekken.json, is of a kind that is not read here; give it",
    ),
    "tiktoken": (in_place_of_json("a.tiktoken"), r"its tokenizer, a.tiktoken, is of a kind that is not read here"),
    "half a tokenizer": (cut("tokenizer.json"), r"tokenizer.json in it is cut short; copy it again"),
    "pickles": (pickled, r"its weights are pickles.*save_pretrained\(\) writes safetensors"),
    "no weights": (remove("model.safetensors"), r"no weights in it"),
    "half the weights": (cut("model.safetensors"), r"model.safetensors in it is cut short"),
    "no bytes": (cut("model.safetensors", 0), r"model.safetensors in it is cut short"),
    "a shard less": (sharded, r"model-00001-of-\d+.safetensors, which .* names, is missing; copy"),
    "another vocab_size": (config(vocab_size=200), r"wte.weight"),
    "another model's tokenizer": (of_another_model, r"its tokenizer has \d+ tokens, the model \d+: it is another"),
    "no config": (remove("config.json"), r"no config.json in it; copy"),
    "half a config": (cut("config.json"), r"config.json in it is cut short"),
    "no model type": (lambda folder: (folder / "config.json").write_text("{}"), r"names no model_type"),
    "an unknown architecture": (config(model_type="frobnicator"), r"has no architecture frobnicator"),
    "remote code": (config(model_type="frobnicator", **REMOTE), r"frobnicator, needs code of its own .* never run"),
}


def load_base(folder):
    known = {**shipped()["base"], "model_name_or_path": str(folder)}
    model, tokenizer = base.pretrained(BaseParams(**known))
    base.complete(model, tokenizer, 0)


def load_reward_base(folder):
    params = JudgeParams(**{**shipped()["judge"], "model_name_or_path": str(folder), "max_length": 64})
    reward_base.load("judge", params, {})


def load_reward_function(folder):
    RewardFunctions.load([str(folder)], None, normalize_rewards=False)


LOADERS = {"base": load_base, "judge": load_reward_base, "reward_funcs": load_reward_function}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("loader", LOADERS)
def test_a_broken_directory_is_one_line_that_says_how_to_mend_it(tiny, tmp_path, fault, loader):
    folder = tmp_path / "model"
    shutil.copytree(tiny.reward if loader == "reward_funcs" else tiny.policy, folder)
    change, text = FAULTS[fault]
    change(folder)
    said = told(LOADERS[loader], folder)
    assert str(folder) in said
    assert re.search(text, said), said


def test_nothing_starts_from_weights_of_few_bits(tiny, monkeypatch):
    """As of a repository whose name ends in -bnb-4bit: transformers cannot write such a model as a plain one."""
    model = models.load_policy(tiny.policy)
    model.is_quantized = True
    monkeypatch.setattr(base, "fetch_causal", lambda *_: (model, models.load_tokenizer(tiny.policy)))
    said = told(load_base, tiny.policy)
    assert "8 or 4 bits" in said and "name the model that they were made from" in said


@pytest.mark.parametrize("fault", ["no tokenizer", "half the weights", "pickles", "remote code"])
def test_talk_tells_a_broken_directory_in_one_line(tiny, tmp_path, fault):
    shutil.copytree(tiny.policy, tmp_path / "model")
    FAULTS[fault][0](tmp_path / "model")
    with pytest.raises(SystemExit, match=FAULTS[fault][1]) as error:
        talk.load(str(tmp_path / "model"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("fault", ["no tokenizer", "half the weights", "pickles", "another vocab_size"])
def test_a_broken_model_of_the_negatives_is_one_line(tiny, tmp_path, monkeypatch, fault):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny.policy, "models/sft")
    FAULTS[fault][0](tmp_path / "models/sft")
    params = NegativesParams(**{**shipped()["negatives"], "model_name_or_path": "models/sft"})
    said = told(negatives.load_model, params)
    assert said.startswith("params.yaml: negatives.model_name_or_path: models/sft cannot be loaded: ")


def test_a_base_of_weights_that_are_not_finite_is_one_line(tiny, tmp_path):
    shutil.copytree(tiny.policy, tmp_path / "model")
    not_finite(tmp_path / "model")
    assert "holds NaN or infinity" in told(load_base, tmp_path / "model")


def test_a_base_whose_tokenizer_ends_nothing_is_one_line(tiny, tmp_path):
    shutil.copytree(tiny.policy, tmp_path / "model")
    tokenizer = models.load_tokenizer(tiny.policy)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "model")
    assert "no EOS token, with which answers end; write one of its tokens as eos_token" in told(
        load_base, tmp_path / "model"
    )


def test_a_whole_directory_is_loaded(tiny):
    load_base(tiny.policy)
    load_reward_base(tiny.policy)
    load_reward_function(tiny.reward)
