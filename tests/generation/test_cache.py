"""The keys and values that sampling caches."""

import pytest
import torch
from architectures import make
from transformers import DynamicCache

from rlhf_lib.models.forward import Steps


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt_neox", "gpt2"])
def test_keys_are_cached_in_the_values_type_and_logits_are_those_of_transformers_cache(kind):
    """In bf16, rotary embeddings make fp32 of keys: their cache would be twice as large, and nothing more exact."""
    _, model = make(kind)
    ids = torch.tensor([[3, 4, 5, 6, 7, 8], [9, 8, 7, 6, 5, 4]])
    steps, plain = Steps(model, 6), DynamicCache(config=model.config)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for start, end in ((0, 4), (4, 5), (5, 6)):
            mask, positions = torch.ones(2, end, dtype=torch.long), torch.arange(start, end).expand(2, -1)
            got = steps(ids[:, start:end], mask, positions)
            wanted = model(ids[:, start:end], attention_mask=mask, position_ids=positions, past_key_values=plain)
            assert torch.equal(got, wanted.logits[:, -1])
    assert {buffer.dtype for layer in steps.cache.layers for buffer in layer.buffers} == {torch.bfloat16}
