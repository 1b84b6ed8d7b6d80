"""Every preset gives params that hold, builds every trainer's config, and runs its first steps on random weights."""

import importlib
import json
import shlex
import shutil
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from dvc.utils.hydra import to_hydra_overrides
from encoders import CONTEXT, save_encoder
from preset_names import PRESETS
from project import DEMO, ROOT
from safetensors.torch import load_file
from shrunk_models import ENCODER, GPT2_MODELS, LENGTH, config_of, write_decoder
from tiny_models import TEXTS
from transformers import AutoConfig, TrainingArguments
from trl import DPOConfig, RewardConfig, SFTConfig
from trl_trainers import CHOSEN, REJECTED, assistant, read_tsv, user

from rlhf_lib.check.sections import SECTIONS, check_all
from rlhf_lib.common import environment
from rlhf_lib.common.rows import write_jsonl
from rlhf_lib.common.schema import check
from rlhf_lib.common.yaml import load_yaml
from rlhf_lib.preset import __main__ as command
from rlhf_lib.preset import overlay as preset
from rlhf_lib.training import trainer as training

TRAINERS = ("sft", "reward", "judge", "dpo", "ppo")
TEMPLATE = 8  # tokens at least that a template puts around a prompt and its answer
CONTEXTS = {  # tokens
    None: 160,
    **dict.fromkeys(GPT2_MODELS, 1024),
    "EleutherAI/gpt-neo-125m": 2048,
    "EleutherAI/pythia-160m": 2048,
    "Qwen/Qwen2.5-0.5B-Instruct": 32768,
    "HuggingFaceTB/SmolLM2-135M": 8192,
    "meta-llama/Llama-3.2-1B-Instruct": 131072,
    ENCODER: 512,
}


def params_of(name):
    """params.yaml with the preset over it."""
    params = load_yaml(DEMO)
    assert preset.overlay(params, list(preset.leaves(load_yaml(ROOT / f"presets/{name}.yaml"))), name)
    return params


def section(params, name):
    return check(SECTIONS[name], params[name], name)


# ---- params and configs


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_holds_only_what_differs(name):
    shipped, own = load_yaml(DEMO), list(preset.leaves(load_yaml(ROOT / f"presets/{name}.yaml")))
    changed = {key for key, *_ in preset.overlay(deepcopy(shipped), own, name)}
    same = [".".join(path) for path, _ in own if ".".join(path) not in changed]
    # smoke also takes back what does not fit its few rows and small model, where another preset lies below it
    assert same == [] or name == "smoke"
    check_all(params_of(name))


# the two others share out prompts, and lengths, that the demo's other values do not go with
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fits_the_context_of_its_model(name):
    params = params_of(name)
    context = params["base"]["n_positions"]
    if params["base"]["model_name_or_path"]:
        context = CONTEXTS[params["base"]["model_name_or_path"]]
    lengths = {key: params[key]["max_length"] for key in ("sft", "reference", "reward", "judge")}
    for key in ("reward", "judge"):
        of_reward, _, _ = params[key]["model_name_or_path"].partition("@")
        assert lengths.pop(key) <= CONTEXTS.get(of_reward, context), key
    lengths |= {"ppo": params["ppo"]["response_length"], "evaluate": params["evaluate"]["max_new_tokens"]}
    assert {key: length for key, length in lengths.items() if length > context} == {}


@pytest.mark.parametrize("name", PRESETS)
def test_kto_of_a_pretrained_model_has_not_the_demos_rate(name):
    """Which is 60 times what TRL advises at most; where another system had a higher one for DPO, KTO may have that."""
    params = params_of(name)
    if params["base"]["model_name_or_path"]:
        assert params["kto"]["learning_rate"] <= max(5e-6, params["dpo"]["learning_rate"])


@pytest.mark.parametrize("name", PRESETS)
def test_ppo_samples_as_long_as_the_answers_that_sft_teaches(name):
    """Where stage prepare bounds the answers; or what is cut off is not penalised, or `make data` has to tell."""
    params = params_of(name)
    longest, penalty = params["prepare"]["max_response_tokens"], params["ppo"]["missing_eos_penalty"]
    if longest is None:
        assert penalty is None or not params["base"]["model_name_or_path"]
    elif penalty is not None:
        assert params["ppo"]["response_length"] > longest and params["evaluate"]["max_new_tokens"] > longest
        prompt = params["prepare"]["max_prompt_tokens"]
        context = CONTEXTS[params["base"]["model_name_or_path"]]
        assert prompt + TEMPLATE <= context - params["ppo"]["response_length"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_row_of_the_longest_prompt_and_answer_can_be_read_whole(name):
    params = params_of(name)
    prompt, answer = (params["prepare"][f"max_{part}_tokens"] for part in ("prompt", "response"))
    if None in (prompt, answer) or params["prepare"]["too_long"] == "truncate":
        return
    for key in ("sft", "reference", "reward", "judge"):
        assert params[key]["max_length"] >= prompt + answer + TEMPLATE, key


@pytest.mark.parametrize("name", PRESETS)
def test_adapters_are_on_all_trained_models_or_on_none(name):
    params = params_of(name)
    of_lora = [{k: params[key][k] for k in ("lora_r", "lora_alpha", "lora_target_modules")} for key in TRAINERS]
    assert all(entry == of_lora[0] for entry in of_lora)
    assert not any(params[key][f"load_in_{bits}bit"] for key in TRAINERS for bits in (4, 8))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_builds_every_config(name, checkpoints):
    params = params_of(name)
    for key, config in (("sft", SFTConfig), ("reward", RewardConfig), ("judge", RewardConfig), ("dpo", DPOConfig)):
        own = section(params, key)
        built = config(**own.config(), **training.trl_kwargs(own, checkpoints))
        assert built.learning_rate == params[key]["learning_rate"]
        assert built.gradient_accumulation_steps == params[key]["gradient_accumulation_steps"]
    ppo = section(params, "ppo")
    built = TrainingArguments(**{**training.trainer_kwargs(checkpoints), **ppo.trainer_config()})
    rows = built.per_device_train_batch_size * built.gradient_accumulation_steps * ppo.num_minibatches
    assert rows == ppo.rollout_batch_size


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_printed_as_flags(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(DEMO, "params.yaml")
    Path("presets").symlink_to(ROOT / "presets")
    monkeypatch.setattr(sys, "argv", ["preset", name, "--flags"])
    command.main()
    words = shlex.split(capsys.readouterr().out)
    assert words and set(words[::2]) == {"-S"}
    changed = {override.key_or_group: override.value() for override in to_hydra_overrides(words[1::2])}
    shipped = load_yaml(DEMO)
    expected = preset.overlay(shipped, list(preset.leaves(load_yaml(ROOT / f"presets/{name}.yaml"))), name)
    assert changed == {key: after for key, _, after in expected}


# ---- the first steps


def shrunk(name):
    """The preset's params for tiny models and nine rows: lengths and batches are smaller, all else is as it says."""
    params = params_of(name)
    params["compute"] |= {"device": "cpu", "precision": "fp32"}
    for key in ("sft", "reward", "judge", "dpo"):
        own = params[key]
        steps = min(own["gradient_accumulation_steps"], 2)
        own |= {"max_steps": 2, "logging_steps": 1, "eval_steps": 2, "save_steps": 2}
        own |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": steps}
        if key != "dpo":
            own["max_length"] = LENGTH
    params["reference"]["max_length"] = LENGTH
    ppo = params["ppo"]
    ppo["num_minibatches"] = min(ppo["num_minibatches"], 2)
    ppo |= {"rollout_batch_size": 4 * ppo["num_minibatches"], "per_device_train_batch_size": 2}
    ppo |= {"total_rollouts": 1, "eval_rollouts": 1, "save_rollouts": 1, "response_length": 8}
    if ppo["reward_funcs"] == ["rewards.exact:exact"]:
        ppo["length_penalty"] = 0.1  # no answer of random weights is right, and from 0 alone nothing is learnt
    return params


@pytest.fixture
def project(checkpoints, tmp_path, monkeypatch):
    """A folder where the stages that train can run, with tiny rows."""
    monkeypatch.setattr(environment, "prepare", lambda offline=True: None)  # the libraries are imported already
    stages = {name: {"cmd": "x", "deps": []} for name in TRAINERS}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    ids = [{"id": str(i), "source": "demo/facts", "prompt": user(text)} for i, text in enumerate(TEXTS)]
    answers = list(zip(ids, CHOSEN, REJECTED, strict=True))
    scores = {"score_chosen": 8.0, "score_rejected": 3.0}
    pairs = [{**row, "chosen": assistant(a), "rejected": assistant(b), **scores} for row, a, b in answers]
    best, worst = {"score": 8.0, "target": 0.9}, {"score": 3.0, "target": 0.2}
    groups = [{**row, "responses": [{"content": a, **best}, {"content": b, **worst}]} for row, a, b in answers]
    files = {
        "sft": [{**row, "completion": assistant(a)} for row, a, _ in answers],
        "prompts": [{**row, "solution": "7"} for row in ids],  # arithmetic's reward asks for it
        "groups": groups,
        **dict.fromkeys(("reward", "preference", "judge"), pairs),
    }
    for file, rows in files.items():
        for half in ("train", "validation"):
            write_jsonl(f"data/splits/{file}_{half}.jsonl", rows)
            write_jsonl(f"data/negatives/{file}_{half}.jsonl", rows)
    write_jsonl("data/splits/test.jsonl", groups[:3])
    return tmp_path


def changed(before, after):
    """The names of the weights that differ between two directories."""
    one, other = (load_file(f"{path}/model.safetensors") for path in (before, after))
    assert one.keys() == other.keys()
    return {name for name in one if not one[name].equal(other[name])}


def last_step(stage):
    return int(read_tsv(f"metrics/{stage}/train.tsv")[-1]["step"])


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_takes_its_first_steps(name, project):
    params = shrunk(name)
    write_decoder(params["base"]["model_name_or_path"], [*TEXTS, *CHOSEN], "models/base")
    if "@" in params["reward"]["model_name_or_path"]:
        assert params["reward"]["model_name_or_path"].startswith("distilbert/")
        save_encoder(Path("models/encoder"), "distilbert")
        params["reward"] |= {"model_name_or_path": "models/encoder", "max_length": CONTEXT}
    check_all(params)
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    for stage in ("sft", "reward", "judge", "reference", "dpo", "ppo"):
        importlib.import_module(f"stages.{stage}").main()
    ppo = section(params, "ppo")
    assert [last_step(stage) for stage in ("sft", "reward", "judge", "dpo")] == [2] * 4
    assert last_step("ppo") == ppo.steps_per_rollout
    model_type = config_of(params["base"]["model_name_or_path"]).model_type
    assert AutoConfig.from_pretrained("models/ppo").model_type == model_type
    for before, after in (("base", "sft"), ("sft", "dpo"), ("sft", "ppo")):
        names = changed(f"models/{before}", f"models/{after}")
        assert names, after
        targets = params[after]["lora_target_modules"]
        if params[after]["lora_r"] is not None:
            adapters = load_file(f"models/{after}/adapter/adapter_model.safetensors")
            assert {key.split(".lora_")[0].rpartition(".")[2] for key in adapters} == set(targets)
            assert all(key.split(".")[-2] in targets for key in names)
            written = json.loads(Path(f"models/{after}/adapter/adapter_config.json").read_text())
            assert (written["r"], written["lora_alpha"]) == (params[after]["lora_r"], params[after]["lora_alpha"])
        inner = [key for key in names if any(f".h.{layer}." in key for layer in range(1, 11))]
        if "1-10" in params[after]["freeze"]:
            assert not inner and not any("ln_f" in key for key in names)
        if "mlp:1-10" in params[after]["freeze"]:
            assert inner and not any(".mlp." in key for key in inner) and any(".h.11.mlp." in key for key in names)
