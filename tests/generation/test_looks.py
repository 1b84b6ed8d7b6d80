"""Sampling that waits for its device once in many tokens, as on a GPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rlhf_lib.generation.decoding import LOOK_EVERY, generate
from rlhf_lib.generation.said import Said
from rlhf_lib.generation.sampling import Sampling, draw, random_numbers
from rlhf_lib.models import hardware
from rlhf_lib.models.loading import load_policy

aten = torch.ops.aten
# What needs a number of a tensor: to fetch it, to know a shape, or to copy a tensor to the CPU.
WAITS = (aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.is_nonzero.default)
LENGTH = 2 * LOOK_EVERY + 3


class Waits(TorchDispatchMode):
    """Counts the waits for tensors while it is on, less those of looks."""

    def __init__(self):
        super().__init__()
        self.looks, self.count, self.is_looking = 0, 0, False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        has_mask = func is aten.index.Tensor and any(x is not None and x.dtype is torch.bool for x in args[1])
        self.count += not self.is_looking and (func in WAITS or has_mask)
        return func(*args, **(kwargs or {}))


def sample(model, tokenizer, sampling, rows=24, prompts=None):
    prompts = prompts or [[20 + i % 7, 30, 31, 40 + i % 5][i % 3 :] for i in range(rows)]
    return generate(model, tokenizer, prompts, sampling, random_numbers(len(prompts), sampling, 3), 64)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.0},
        {"temperature": 0.0, "no_repeat_ngram_size": 2},
        {"top_k": 20},
        {"top_p": 0.9, "min_new_tokens": 5},
        {"top_k": 30, "top_p": 0.8},
        {"stop_strings": ("t", "cat")},
        {"stop_strings": ("e",), "top_k": 40},
    ],
    ids=str,
)
def test_answers_are_those_of_a_look_at_every_token(ending, tokenizer, options):
    sampling = Sampling(LENGTH, **options)
    model = load_policy(ending)
    expected = sample(model, tokenizer, sampling)
    with hardware.as_on_a_gpu():
        got = sample(model, tokenizer, sampling)
    assert [(r.ids, r.finished, r.stopped) for r in got] == [(r.ids, r.finished, r.stopped) for r in expected]
    for one, other in zip(got, expected, strict=True):
        assert (one.support is None) is (other.support is None)
        if one.support is not None:
            # tokens about equally likely may be in another order: the attention's products are not the same
            assert one.support.padded().sort().values.equal(other.support.padded().sort().values)
    if "temperature" not in options:  # rows end behind every look, at different places
        assert len({len(r.ids) for r in expected}) > 4


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.0}, {"top_k": 20, "top_p": 0.9}, {"top_p": 0.9}, {"no_repeat_ngram_size": 3}]
)
def test_between_two_looks_nothing_waits(policy, tokenizer, options, monkeypatch):
    note = Said.note

    def seen(self, *args):
        waits.looks, waits.is_looking = waits.looks + 1, True
        try:
            return note(self, *args)
        finally:
            waits.is_looking = False

    sample(policy, tokenizer, Sampling(1))  # what a model can do is found out once
    monkeypatch.setattr(Said, "note", seen)
    policy.generation_config.eos_token_id = None  # so that all rows stay to the end
    counts = []
    for length in (1, LENGTH):
        with hardware.as_on_a_gpu(), Waits() as waits:
            sample(policy, tokenizer, Sampling(length, **options))
        counts.append(waits.count)
    assert waits.looks == 3
    assert counts[0] == counts[1]  # of the prompts alone


def test_a_token_is_waited_for_where_a_cpu_looks(policy, tokenizer):
    """The counter counts: there top-p asks how wide its widest row is."""
    counts = []
    for length in (4, 8):
        with Waits() as waits:
            sample(policy, tokenizer, Sampling(length, top_p=0.9))
        counts.append(waits.count)
    assert counts[1] - counts[0] >= 4


@pytest.mark.parametrize("options", [{}, {"top_k": 5}, {"top_p": 0.9}, {"temperature": 0.0}], ids=str)
def test_a_model_whose_logits_are_nan_gives_tokens_of_its_vocabulary(ending, tokenizer, options):
    """On a GPU any other would end the process, before the loss can say what diverged."""
    model = load_policy(ending)
    torch.nn.init.constant_(model.get_output_embeddings().weight, torch.nan)
    answers = sample(model, tokenizer, Sampling(4, **options), rows=3)
    vocabulary = model.config.vocab_size
    assert all(0 <= token < vocabulary for answer in answers for token in answer.ids)


def test_the_last_token_is_drawn_where_its_probability_says_so():
    probabilities = torch.tensor([[0.25, 0.25, 0.5], [0.5, 0.5, 0.0]])
    most = torch.full((2, 1), 1 - 2**-24)
    assert draw(probabilities, most).tolist() == [2, 1]
