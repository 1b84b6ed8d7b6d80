"""Where a model's layers are."""

import pytest
import torch
from architectures import KINDS, make
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from rlhf_lib.models.layers import blocks, find_layers


@pytest.mark.parametrize("kind", KINDS)
def test_layers_of_many_architectures(kind):
    model, _ = make(kind)
    name, layers = find_layers(model)
    assert model.get_submodule(name) is layers is blocks(model)
    assert len(layers) == model.config.num_hidden_layers >= 2
    assert all(any(True for _ in layer.parameters()) for layer in layers)


def test_a_layers_experts_are_no_layers():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=4, n_layer=2, n_head=1, n_positions=8))
    model.transformer.h[0].experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(9))
    model.transformer.h[0].pair = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
    assert find_layers(model)[0] == "transformer.h"


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe"])
def test_layers_of_mixtures_of_experts(kind):
    config = AutoConfig.for_model(kind, num_hidden_layers=3, hidden_size=32, vocab_size=50)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert len(blocks(model)) == 3 and find_layers(model)[0] == "model.layers"


def test_none():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=8, n_embd=4, n_layer=2, n_head=1, n_positions=8))
    del model.transformer.h
    assert find_layers(model)[0] == "" and len(blocks(model)) == 0
