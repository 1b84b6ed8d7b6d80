"""In how many bits log-probs and entropies are computed, whatever the model is, and where."""

import pytest
import torch

from rlhf_lib.models.logprobs import Distribution, Response, logprobs_and_entropies, token_logprobs


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_rounds_neither_logprobs_nor_entropies(dtype):
    logits = torch.randn(5, 3000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, expected = torch.arange(5), torch.distributions.Categorical(logits=logits)
    with torch.autocast("cpu", dtype):
        found = logprobs_and_entropies(logits.float(), tokens)
    for one, other in zip(found, (expected.log_prob(tokens), expected.entropy()), strict=True):
        torch.testing.assert_close(one.double(), other, atol=1e-5, rtol=0)


def test_logprobs_are_no_float64_before_they_are_on_the_cpu(policy, tokenizer, monkeypatch):
    """Apple's GPUs have none."""
    real, fetched = torch.Tensor.cpu, []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: fetched.append(x) or real(x))
    prompts, responses = [[20], [21, 22]], [Response([50, 51], True), Response([60], True)]
    found = token_logprobs(policy, prompts, responses, tokenizer.pad_token_id, Distribution(), 8)
    assert all(x.dtype is torch.float64 for x in found)
    assert fetched and all(x.dtype is torch.float32 for x in fetched)
