"""Matrices that no gradient reaches, held in bf16: which they are, and what a model computes with them."""

import dataclasses
import gc
import shutil
import sys
from pathlib import Path

import pytest
import torch
from architectures import draw
from model_table import TABLE
from one_line import told
from torch import nn

from rlhf_lib.models import frozen, hardware
from rlhf_lib.models import loading as models
from rlhf_lib.models.params import AUTO
from rlhf_lib.models.proof import takes_cache, takes_left_padding
from rlhf_lib.scoring.reward_model import RewardModel

IDS = torch.tensor([[5, 6, 7, 8, 9]])
PROMPTS = [[{"role": "user", "content": "Name the cat."}]] * 2
ANSWERS = ["Cat.", "in one word"]


def logits(model):
    with torch.no_grad(), hardware.autocast():
        return model(IDS).logits


def held_bytes(model):
    return sum(p.numel() * p.element_size() for p in model.parameters())


def test_matrices_are_held_and_norms_are_not(tiny):
    model = models.load_policy(tiny.policy, torch.bfloat16)
    vocabulary = len(models.load_tokenizer(tiny.policy))
    in_fp32 = {name for name, p in model.named_parameters() if p.dtype == torch.float32}
    norms = {name for name, _ in model.named_parameters() if "ln_" in name}
    assert in_fp32 == norms and all(
        p.dtype == torch.bfloat16 for name, p in model.named_parameters() if name not in norms
    )
    # by hand, of GPT-2 with 2 layers of width 32: products with their biases, tables, and norms
    products = 2 * (32 * 96 + 96 + 32 * 32 + 32 + 32 * 128 + 128 + 128 * 32 + 32)
    assert held_bytes(model) == 2 * (products + 32 * (vocabulary + 64)) + 4 * (2 * 4 * 32 + 2 * 32)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_mapped_file_stays_for_what_is_left_in_fp32(tiny, tmp_path):
    """safetensors' weights are the file's own bytes: one norm would keep all of them in memory."""
    folder = shutil.copytree(tiny.policy, tmp_path.resolve() / "model")  # which no other test has in memory

    def mapped():
        return any(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())

    plain = models.load_policy(folder)
    assert mapped()
    del plain
    gc.collect()
    held = models.load_policy(folder, torch.bfloat16)
    assert not mapped() and held.transformer.ln_f.weight.dtype == torch.float32


def test_without_tables_all_is_as_under_autocast_to_the_bit(tiny, compute):
    compute(precision="bf16")
    model = models.load_policy(tiny.policy, torch.bfloat16, tables=False)
    assert model.get_input_embeddings().weight.dtype == torch.float32
    assert logits(model).equal(logits(models.load_policy(tiny.policy)))


def test_rows_of_a_held_table_are_rounded_once(tiny, compute):
    """What they are added to is fp32: nothing else of the model knows."""
    compute(precision="bf16")
    plain = models.load_policy(tiny.policy)
    for table in (plain.transformer.wte, plain.transformer.wpe):
        table.weight.data = table.weight.data.bfloat16().float()
    assert logits(models.load_policy(tiny.policy, torch.bfloat16)).equal(logits(plain))


@pytest.mark.slow
@pytest.mark.parametrize("kind", TABLE)
def test_every_architecture_computes_the_same_with_held_matrices(compute, kind):
    compute(precision="bf16")
    model = draw(kind, 320).eval()
    model.config.use_cache = False
    expected = logits(model)
    frozen.hold(model, torch.bfloat16, tables=False)
    assert frozen.is_held(model) and logits(model).equal(expected)
    frozen.hold(model, torch.bfloat16)
    difference = (logits(model).float() - expected.float()).norm() / expected.float().norm()
    assert difference < 0.02
    assert takes_left_padding(model) == takes_left_padding(draw(kind, 320).eval())
    assert takes_cache(model) == takes_cache(draw(kind, 320).eval())


def test_only_what_has_no_gradient_is_held_of_a_model_that_is_trained():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.LayerNorm(2))
    model[0].requires_grad_(False)
    frozen.hold(model, torch.bfloat16, untrained_only=True)
    assert [p.dtype for p in model.parameters()] == [torch.bfloat16] * 2 + [torch.float32] * 4
    frozen.hold(model, torch.float32)
    assert frozen.is_held(model)


def test_held_weights_are_given_their_values_back(tiny):
    model, original = models.load_policy(tiny.policy, torch.bfloat16), models.load_policy(tiny.policy)
    assert not model.transformer.wpe.weight.float().equal(original.transformer.wpe.weight)
    frozen.restore(model, original)
    assert not frozen.is_held(model)
    assert all(one.equal(other) for one, other in zip(model.parameters(), original.parameters(), strict=True))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_scores_of_a_held_reward_model_are_near_and_come_from_a_head_in_fp32(tiny):
    exact = RewardModel.load(tiny.reward)
    held = RewardModel.load(tiny.reward, dtype=torch.bfloat16)
    assert held.model.score.weight.dtype == torch.float32
    assert held.model.transformer.h[0].mlp.c_fc.weight.dtype == torch.bfloat16
    scores = held.scores(PROMPTS, ANSWERS)
    assert scores == pytest.approx(exact.scores(PROMPTS, ANSWERS), abs=0.02)
    assert scores != exact.scores(PROMPTS, ANSWERS)
    assert torch.tensor(scores).bfloat16().tolist() != scores


# ---- Which type


@pytest.mark.parametrize(
    ("changes", "on_a_cpu", "on_a_gpu"),
    [
        ({"precision": "fp32"}, torch.float32, torch.float32),
        ({"precision": "bf16"}, torch.float32, torch.bfloat16),
        ({"precision": "bf16", "frozen_dtype": "fp32"}, torch.float32, torch.float32),
        ({"precision": "bf16", "frozen_dtype": "bf16"}, torch.bfloat16, torch.bfloat16),
    ],
)
def test_auto_holds_bf16_on_a_gpu_that_multiplies_it(compute, changes, on_a_cpu, on_a_gpu):
    compute(**changes)
    assert hardware.frozen_dtype() == on_a_cpu
    with hardware.as_on_a_gpu():
        assert hardware.frozen_dtype() == on_a_gpu


def test_evaluation_has_a_switch_of_its_own(compute):
    compute(precision="fp32")
    assert hardware.eval_dtype(True) == torch.bfloat16 and hardware.eval_dtype(False) == torch.float32


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"frozen_dtype": "bf16", "precision": "fp32"},
            "params.yaml: compute.frozen_dtype: bf16 goes with products in bf16, which here are in fp32; set "
            "compute.precision to bf16, or compute.frozen_dtype to auto",
        ),
        (
            {"tf32": True},
            "params.yaml: compute.tf32: needs a CUDA GPU of the Ampere generation or later, and this is cpu; leave it "
            "empty",
        ),
    ],
)
def test_what_does_not_go_is_told_in_one_line(compute, changes, expected):
    assert told(hardware.use, dataclasses.replace(AUTO, device="cpu", **changes)) == expected


def test_tf32_can_be_refused_anywhere(compute):
    compute(tf32=False)
    assert hardware.trainer_kwargs()["tf32"] is False
    compute()
    assert hardware.trainer_kwargs()["tf32"] is None
