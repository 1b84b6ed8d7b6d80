"""Answers by transformers' own `generate()`: cut where ours are."""

import copy

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from rlhf_lib.generation.decoding import generate
from rlhf_lib.generation.library import by_library
from rlhf_lib.generation.sampling import Sampling, random_numbers

LENGTH, EOS, WORD = 12, 100, 280


@pytest.fixture
def counting(tokenizer):
    """A model that behind each token says the next of the vocabulary, and stops at `EOS`."""
    size = {"n_embd": 64, "n_layer": 1, "n_head": 2, "n_positions": 64}
    tokens = {"vocab_size": len(tokenizer), "bos_token_id": EOS, "eos_token_id": EOS}
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**size, **tokens, tie_word_embeddings=False)).eval()
    block = model.transformer.h[0]
    with torch.no_grad():
        for weight in (block.attn.c_proj.weight, block.mlp.c_proj.weight, model.transformer.wpe.weight):
            nn.init.zeros_(weight)
        model.lm_head.weight.copy_(nn.functional.normalize(model.transformer.wte.weight).roll(1, dims=0))
    return model


@pytest.mark.parametrize("pad", [None, EOS], ids=["own pad", "pad that stops"])
def test_answers_end_where_ours_do(counting, tokenizer, pad):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = tokenizer.pad_token if pad is None else tokenizer.convert_ids_to_tokens(pad)
    prompts = [[9] * (1 + last % 3) + [last] for last in (EOS - 1, EOS - 4, WORD - 1, WORD - 5, EOS + 20)]
    sampling = Sampling(LENGTH, temperature=0.0, stop_strings=(tokenizer.decode([WORD]),))
    expected = generate(counting, tokenizer, prompts, sampling, random_numbers(len(prompts), sampling, 0), 8)
    got = by_library(counting, tokenizer, prompts, sampling.stop_strings, max_new_tokens=LENGTH, do_sample=False)
    for responses in (got, expected):
        assert [(r.ids, r.finished, r.stopped) for r in responses] == [
            ([EOS], True, True),
            ([EOS - 3, EOS - 2, EOS - 1, EOS], True, True),
            ([WORD], True, False),
            ([*range(WORD - 4, WORD + 1)], True, False),
            ([*range(EOS + 21, EOS + 21 + LENGTH)], False, False),
        ]
