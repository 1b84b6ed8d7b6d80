"""Adapters on weights that they cannot be merged into, and merged models held to the trained ones."""

from functools import partial
from pathlib import Path

import pytest
import torch
from architectures import draw
from one_line import told
from peft import LoraConfig, get_peft_model
from ppo_trainers import ppo_params
from trl_trainers import TRAINER, dpo_trainer, reward_trainer, sft_trainer

from rlhf_lib.models import loading as models
from rlhf_lib.ppo import build as ppo
from rlhf_lib.sft.params import SFTParams
from rlhf_lib.training import weights


def ppo_policy(tiny, checkpoints, **changes):
    return ppo.policy_and_reference(ppo_params(**changes), str(tiny.policy), str(tiny.reward))


BUILD = {"sft": sft_trainer, "reward": reward_trainer, "dpo": dpo_trainer, "ppo": ppo_policy}


@pytest.mark.parametrize("stage", BUILD)
@pytest.mark.parametrize("target", ["wte", "wpe", "lm_head", "score"])
def test_targets_that_cannot_be_merged_are_refused_before_training(tiny, checkpoints, stage, target):
    is_classifier = stage == "reward"
    if target == ("lm_head" if is_classifier else "score"):
        return  # the model has none
    said = told(BUILD[stage], tiny, checkpoints, lora_r=4, lora_target_modules=["c_attn", target])
    assert said.startswith(f"params.yaml: {stage}.lora_target_modules: {target}: ")
    if target in ("wte", "lm_head") and not is_classifier:
        assert "its weights are also those of " in said
    else:
        assert ("the head, which is trained whole" if target == "score" else "an embedding") in said


def test_an_output_layer_of_its_own_is_refused_too(tiny):
    model = models.load_policy(tiny.policy)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    config = LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM")
    assert "lm_head: the output layer, whose adapter would never be trained" in told(
        weights.with_lora, "sft", model, config
    )


def test_the_critics_adapters_are_looked_at_as_the_policys(tiny, checkpoints):
    changes = {"critic": "lora", "lora_r": 4, "lora_target_modules": ["wpe"]}
    assert "ppo.lora_target_modules: wpe: an embedding" in told(ppo_policy, tiny, checkpoints, **changes)


@pytest.mark.parametrize(
    ("kind", "named", "layers"),
    [
        ("gpt2", None, {"c_attn"}),  # PEFT's choice
        ("phi3", None, {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}),  # it has none
        ("mamba", None, {"in_proj", "x_proj", "dt_proj"}),  # out_proj is read past the adapter
        (
            "granitemoehybrid",
            None,
            {"in_proj", "q_proj", "k_proj", "v_proj", "o_proj", "input_linear", "output_linear"},
        ),
        ("gpt2", ["all-linear"], {"c_attn", "c_proj", "c_fc"}),
        ("opt", ["all-linear"], {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}),
        ("falcon", ["all-linear"], {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
        ("llama4_text", ["all-linear"], {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("llama", ["up_proj"], {"up_proj"}),
    ],
)
def test_the_layers_that_get_adapters(kind, named, layers):
    model = draw(kind)
    params = SFTParams(**{**TRAINER, "max_length": 64, "lora_r": 2, "lora_target_modules": named})
    config = weights.lora_config(params, model, "CAUSAL_LM")
    adapted = weights.with_lora("sft", model, config)
    names = {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert names == layers
    assert adapted(torch.arange(1, 9)[None]).logits.isfinite().all()


def adapted(model, targets, task):
    """The model with adapters that change it."""
    config = LoraConfig(r=4, target_modules=targets, task_type=task, fan_in_fan_out=True)
    model = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "lora_embedding_A" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def test_a_merged_model_that_is_not_the_trained_one_is_not_exported(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = adapted(models.load_policy(tiny.policy), ["lm_head"], "CAUSAL_LM")
    said = told(weights.save, "sft", model, models.load_tokenizer(tiny.policy), "models/sft", None)
    assert said.startswith(
        "params.yaml: sft.lora_target_modules: the model with its adapters merged is not the trained"
    )
    assert "its logits differ by " in said and "no model was written" in said
    assert not Path("models/sft").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_model_that_is_the_trained_one_is_exported(tiny, tmp_path, dtype):
    model = adapted(models.load_policy(tiny.policy), ["c_attn", "c_proj", "c_fc"], "CAUSAL_LM").to(dtype)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
    weights.save(
        "sft", model, models.load_tokenizer(tiny.policy), tmp_path / "sft", partial(models.load_policy, tiny.policy)
    )
    after = models.load_policy(tmp_path / "sft")
    with torch.no_grad():
        torch.testing.assert_close(after(input_ids=ids).logits, before.float(), atol=0.3, rtol=0.05)


def test_the_check_leaves_the_random_numbers_alone(tiny, tmp_path):
    model = adapted(models.load_policy(tiny.policy), ["c_attn"], "CAUSAL_LM")
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    weights.save("sft", model, models.load_tokenizer(tiny.policy), tmp_path / "sft", None)
    assert torch.rand(3).equal(expected)
