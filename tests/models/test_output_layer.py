"""The output layer in chunks, as on a GPU: the same numbers and gradients, and never all logits at once."""

import pytest
import torch
from architectures import make
from model_table import TABLE
from torch import tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlhf_lib.models import hardware, output_layer
from rlhf_lib.models.logprobs import Distribution, Response, collate, response_distribution
from rlhf_lib.models.support import of_padded

VOCABULARY, WIDTH = 50, 32
PROMPTS = [[7, 8, 9], [10], [11, 12, 13, 14, 15]]
SUPPORT = tensor([[20, 21, 22], [21, 23, -1], [5, -1, -1], [6, 9, -1]])
RESPONSES = [
    Response([20, 21, 5, 6], True, of_padded(SUPPORT)),
    Response([5], True, of_padded(SUPPORT[2:3])),
    Response([21, 23], True, of_padded(SUPPORT[:2])),
]
FREE = [Response(response.ids, True) for response in RESPONSES]
BOUND = Distribution(0.7, 2, (5,))

CHUNKS = pytest.mark.parametrize("rows", [1, 3, 100])  # tokens of a chunk; there are seven


class Largest(TorchDispatchMode):
    """The most rows of logits that an operator makes."""

    def __init__(self):
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        is_of_tokens = isinstance(made, torch.Tensor) and made.dim() > 1 and made.size(-2) != WIDTH
        if is_of_tokens and made.size(-1) == VOCABULARY:
            self.rows = max(self.rows, made.numel() // VOCABULARY)
        return made


def learnt(model, responses, distribution):
    """Log-probs, entropies, and the gradients of a loss that has both."""
    model.zero_grad()
    batch = collate(model, PROMPTS, responses, pad_id=0)
    logprobs, entropies = response_distribution(model, batch, distribution)
    weights = torch.arange(1.0, 1 + len(logprobs))
    (logprobs @ weights + 0.3 * entropies.square().sum()).backward()
    return [logprobs, entropies, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("kind", TABLE)
def test_chunks_give_the_numbers_and_gradients_of_the_whole(kind, monkeypatch):
    monkeypatch.setattr(output_layer, "CHUNK", 3 * VOCABULARY)
    model = make(kind)[1].requires_grad_()
    expected = [x.detach().clone() for x in learnt(model, FREE, Distribution(0.7))]
    with hardware.as_on_a_gpu():
        got = learnt(model, FREE, Distribution(0.7))
    assert len(got) == len(expected) > 4
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@CHUNKS
@pytest.mark.parametrize(("responses", "distribution"), [(RESPONSES, Distribution()), (FREE, BOUND)])
def test_each_token_keeps_what_it_was_drawn_from(rows, responses, distribution, monkeypatch):
    monkeypatch.setattr(output_layer, "CHUNK", rows * VOCABULARY)
    model = make("gpt2")[1].requires_grad_()
    expected = [x.detach().clone() for x in learnt(model, responses, distribution)]
    with hardware.as_on_a_gpu():
        for one, other in zip(learnt(model, responses, distribution), expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_no_more_logits_than_a_chunk_s_are_made(monkeypatch):
    monkeypatch.setattr(output_layer, "CHUNK", 2 * VOCABULARY)
    model = make("llama")[1].requires_grad_()
    with Largest() as largest:
        learnt(model, FREE, Distribution())
    assert largest.rows == 7
    with hardware.as_on_a_gpu(), Largest() as largest:
        learnt(model, FREE, Distribution())
    assert largest.rows == 2


def test_the_model_is_as_before(monkeypatch):
    model = make("opt")[1]
    before = {name: dict(module.__dict__) for name, module in model.named_modules()}
    with hardware.as_on_a_gpu(), torch.no_grad():
        response_distribution(model, collate(model, PROMPTS, FREE, pad_id=0), Distribution())
    assert {name: module.__dict__.keys() for name, module in model.named_modules()} == {
        name: kept.keys() for name, kept in before.items()
    }
