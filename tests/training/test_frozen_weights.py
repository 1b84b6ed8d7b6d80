"""SFT, reward model and DPO where what they do not train is held in bf16: the losses, and what is exported."""

from functools import partial

import pytest
import torch
from reward_trainers import load as load_reward_base
from safetensors.torch import load_file
from trained import column
from trl_trainers import BUILD

from rlhf_lib.models import frozen
from rlhf_lib.models import loading as models
from rlhf_lib.training import trainer as training
from rlhf_lib.training import weights
from rlhf_lib.training.weights import ADAPTER

RUN = {"max_steps": 3, "eval_steps": 3, "save_steps": 3}
LORA = {"lora_r": 4, "lora_alpha": 8}
PARTS = {"freeze": ["embeddings", "mlp"]}
HELD = {"precision": "bf16", "frozen_dtype": "bf16"}


def run(what, tiny, checkpoints, **changes):
    trainer = BUILD[what](tiny, checkpoints, **RUN, **changes)
    training.run(trainer, checkpoints)
    checkpoints.remove()
    return trainer


@pytest.mark.parametrize("what", BUILD)
def test_the_trunk_is_held_in_bf16_and_adapters_and_heads_in_fp32(tiny, checkpoints, compute, what):
    compute(**HELD)
    trainer = BUILD[what](tiny, checkpoints, **LORA)
    trained = {p.dtype for p in trainer.model.parameters() if p.requires_grad}
    assert trained == {torch.float32}
    for name, p in trainer.model.named_parameters():
        if not p.requires_grad:
            # DPO's first margins are 0 where its tables are those of stage reference
            kept = "ln_" in name or "score" in name or (what == "dpo" and "transformer.w" in name)
            assert p.dtype == (torch.float32 if kept else torch.bfloat16), name


@pytest.mark.parametrize(
    ("what", "changes", "tolerance"),
    [
        ("sft", LORA, 2e-3),  # rows of held tables are rounded
        ("reward", LORA, 2e-3),
        ("dpo", LORA, 0.0),
        ("sft", PARTS, 0.0),
        ("reward", PARTS, 0.0),
        ("dpo", PARTS, 0.0),
    ],
)
def test_losses_are_those_of_weights_in_fp32(tiny, checkpoints, compute, what, changes, tolerance):
    compute(precision="bf16")
    expected = column(run(what, tiny, checkpoints, **changes), "loss")
    compute(**HELD)
    trainer = run(what, tiny, checkpoints, **changes)
    assert frozen.is_held(trainer.model)
    assert column(trainer, "loss") == pytest.approx(expected, abs=tolerance, rel=0)
    assert len(set(expected)) == 3


def test_adapters_are_merged_into_weights_in_fp32(tiny, checkpoints, compute):
    """W + (alpha / r) B A, with W as SFT found it, and not as it was held."""
    compute(**HELD)
    trainer = run("sft", tiny, checkpoints, **LORA)
    load = partial(models.load_policy, tiny.policy)
    plain = weights.export(trainer, "sft", None, "CAUSAL_LM", "exported", load)
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    before, after = (load_file(f"{folder}/model.safetensors") for folder in (tiny.policy, "exported"))
    adapter = load_file(f"exported/{ADAPTER}/adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    name = "transformer.h.1.attn.c_attn"
    of_a, of_b = (adapter[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
    delta = 2.0 * (of_b @ of_a).T  # GPT-2 holds its matrices transposed
    assert delta.abs().max() > 1e-3
    torch.testing.assert_close(after[f"{name}.weight"], before[f"{name}.weight"] + delta, atol=1e-7, rtol=1e-6)
    untouched = [key for key in before if not key.endswith("c_attn.weight")]
    assert untouched and all(after[key].equal(before[key]) for key in untouched)


@pytest.mark.parametrize("changes", [LORA, PARTS])
def test_no_second_model_comes_to_lie_on_the_gpu_beside_the_trained_one(
    tiny, checkpoints, compute, changes, monkeypatch
):
    """In fp32 it has twice the bytes or, of 4 bits, eight times: what was trained there could not be written."""
    compute(**HELD)
    trainer = run("sft", tiny, checkpoints, **changes)
    with monkeypatch.context() as on_a_gpu:
        on_a_gpu.setattr(torch.cuda, "is_available", lambda: True)
        on_a_gpu.setattr(torch.cuda, "device_count", lambda: 1)
        on_a_gpu.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        compute(**HELD, device="cuda")
        load = partial(models.load_policy, tiny.policy)
        with pytest.raises((RuntimeError, AssertionError)):
            load()  # there is no such device
        plain = weights.export(trainer, "sft", None, "CAUSAL_LM", "exported", load)
    compute(**HELD)
    assert {p.device.type for p in plain.parameters()} == {"cpu"} and not frozen.is_held(plain)


@pytest.mark.parametrize("what", ["sft", "reward"])
def test_frozen_parts_are_exported_as_they_were(tiny, checkpoints, compute, what):
    compute(**HELD)
    trainer = run(what, tiny, checkpoints, **PARTS)
    task, load = {
        "sft": ("CAUSAL_LM", partial(models.load_policy, tiny.policy)),
        "reward": ("SEQ_CLS", lambda: load_reward_base(tiny.policy).model),
    }[what]
    plain = weights.export(trainer, what, None, task, what, load)
    assert not frozen.is_held(plain)
    before, after = (load_file(f"{folder}/model.safetensors") for folder in (tiny.policy, what))
    kept = [key for key in before if ".mlp." in key or ".wte." in key or ".wpe." in key]
    assert kept and all(after[key].equal(before[key]) for key in kept)
    moved = [key for key in before if ".attn." in key]
    assert moved and not any(after[key].equal(before[key]) for key in moved)


def test_what_will_be_sharded_stays_in_fp32_and_a_line_says_so(tiny, compute, capsys, monkeypatch):
    compute(**HELD)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    model = models.load_policy(tiny.policy)
    weights.hold_frozen(model)
    assert capsys.readouterr().out == ""  # all of it is trained
    model.transformer.wte.requires_grad_(False)
    weights.hold_frozen(model)
    assert not frozen.is_held(model)
    assert capsys.readouterr().out.startswith("compute.frozen_dtype: of a model that FSDP shards, ")
