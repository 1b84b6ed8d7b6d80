"""The keys and values that sampling caches."""

import pytest
import torch
from architectures import make
from numbers_by_hand import close
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


@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text", "mamba"])
def test_rows_that_begin_alike_are_read_once_and_go_on_by_themselves(kind):
    """Two prompts, one of them padded, asked three times and twice."""
    _, model = make(kind)
    read = []
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: read.append(tuple(output.shape)))
    prompts, masks = [[0, 4, 5], [7, 8, 9]], [[0, 1, 1], [1, 1, 1]]
    order, next_ids = [0, 1, 0, 0, 1], torch.tensor([[3], [4], [5], [3], [6]])
    steps = Steps(model, 5)
    ids, mask = (torch.tensor([rows[place] for place in order]) for rows in (prompts, masks))
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with torch.no_grad():
        first = steps(ids, mask, positions)
        second = steps(next_ids, torch.cat([mask, torch.ones_like(next_ids)], dim=1), positions[:, -1:] + 1)
        for row, (start, then) in enumerate(zip(order, next_ids.tolist(), strict=True)):
            alone = Steps(model, 5)
            real = torch.tensor(
                [[token for token, is_real in zip(prompts[start], masks[start], strict=True) if is_real]]
            )
            places = torch.arange(real.size(1) + 1)[None]
            everywhere = torch.ones_like(places)
            close(first[row], alone(real, everywhere[:, :-1], places[:, :-1])[0], 2e-5)
            close(second[row], alone(torch.tensor([then]), everywhere, places[:, -1:])[0], 2e-5)
    assert [shape[:2] for shape in read[:2]] == [(2, 3), (5, 1)]
