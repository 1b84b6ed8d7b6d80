"""What a model draws at random while it trains, and that it can be switched off."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from rlhf_lib.training.dropout import disable_dropout

HALF = 0.5
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 50}
LLAMA = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "attention_dropout": HALF}
KINDS = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 50, "resid_pdrop": HALF, "attn_pdrop": HALF},
    "llama": LLAMA,
    "granite": LLAMA,
    "opt": {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32, "dropout": HALF, "layerdrop": HALF},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2, "vocab_size": 50, "hidden_dropout": HALF},
    "gpt_neox": {**SIZES, "intermediate_size": 48, "hidden_dropout": HALF},
    "bert": {**SIZES, "intermediate_size": 48, "hidden_dropout_prob": HALF},
}


@pytest.mark.parametrize("kind", KINDS)
def test_without_dropout_a_model_says_the_same_in_training(kind):
    auto = AutoModelForSequenceClassification if kind == "bert" else AutoModelForCausalLM
    torch.manual_seed(0)
    model, ids = auto.from_config(AutoConfig.for_model(kind, **KINDS[kind])), torch.arange(1, 13).reshape(2, 6)
    with torch.no_grad():
        expected = model.eval()(ids).logits
        assert not model.train()(ids).logits.equal(expected)
        disable_dropout(model)
        for _ in range(3):
            assert model.train()(ids).logits.equal(expected)
