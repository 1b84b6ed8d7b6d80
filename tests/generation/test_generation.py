import math
from copy import deepcopy

import pytest
import torch
from architectures import make
from numbers_by_hand import close
from torch import tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig

from rlhf_lib.generation.decoding import generate
from rlhf_lib.generation.sampling import Sampling, draw, random_numbers
from rlhf_lib.models.logprobs import Distribution, collate, response_logprobs

ALMOST_1 = torch.nextafter(tensor(1.0), tensor(0.0)).item()


@pytest.fixture(scope="module")
def prompts(tokenizer):
    """Of different lengths, some with the pad and the EOS id as ordinary tokens."""
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    return [[20], [21, pad, 22], [30, eos, 31, pad, 33, 34, 35, 36, 37], [eos] * 5, list(range(40, 60)), [20, 25]]


@pytest.fixture(scope="module")
def ending(policy, tokenizer):
    """The tiny policy, which here ends its response with any token with a probability of about a fifth."""
    model = deepcopy(policy)
    with torch.no_grad():
        eos = model.get_input_embeddings().weight[tokenizer.eos_token_id]
        model.transformer.ln_f.bias.copy_(4.5 * eos / eos.square().sum())
    return model


def sample(model, tokenizer, prompts, sampling, seed=0, batch_size=64, noise=None):
    noise = random_numbers(len(prompts), sampling, seed) if noise is None else noise
    return generate(model, tokenizer, prompts, sampling, noise, batch_size)


def same(one, other):
    assert [(r.ids, r.finished) for r in one] == [(r.ids, r.finished) for r in other]


def next_probabilities(model, ids, temperature=1.0):
    with torch.no_grad():
        return (model(tensor([ids])).logits[0, -1].float() / temperature).softmax(0)


# ---- Greedy


def up_to(ids, stops):
    ends = [place for place, token in enumerate(ids) if token in stops]
    return ids[: ends[0] + 1] if ends else ids


def only_pads(tokenizer):
    """All that sampling wants of a tokenizer: what ends an answer is the model's to say."""
    return type("Tokenizer", (), {"pad": staticmethod(tokenizer.pad), "pad_token_id": 0})()


@pytest.mark.parametrize("min_new_tokens", [0, 3])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral", "gemma2", "gpt_neox", "opt", "gpt_neo"])
def test_greedy_responses_are_those_of_transformers(kind, min_new_tokens, tokenizer):
    plain, fast = make(kind)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, 50, (size,), generator=generator).tolist() for size in (1, 6, 3, 6, 9, 2)]
    padded = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
    # Tokens that two rows come to shall stop, so that not all rows are cut.
    plain.generation_config = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0)
    free = plain.generate(**padded)
    stops = [free[2, -5].item(), free[4, -7].item()]
    config = GenerationConfig(
        max_new_tokens=12, min_new_tokens=min_new_tokens, do_sample=False, pad_token_id=0, eos_token_id=stops
    )
    expected = plain.generate(**padded, generation_config=config)[:, padded["input_ids"].size(1) :].tolist()
    fast.generation_config.eos_token_id = stops
    sampling = Sampling(12, temperature=0.0, min_new_tokens=min_new_tokens)
    got = sample(fast, only_pads(tokenizer), prompts, sampling)
    assert [r.ids for r in got] == [up_to(ids, stops) for ids in expected]
    assert [r.finished for r in got] == [not set(stops).isdisjoint(ids) for ids in expected]
    assert [r.stopped for r in got] == [r.finished for r in got]
    assert any(r.finished for r in got) and all(r.support is None for r in got)
    same(got, [sample(fast, only_pads(tokenizer), [prompt], sampling)[0] for prompt in prompts])


@pytest.mark.parametrize("changes", [{"num_beams": 4}, {"num_beams": 3, "min_new_tokens": 4}, {}])
def test_beams_and_banned_repeats_are_those_of_transformers(changes, tokenizer):
    plain, fast = make("gpt2")
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(3, 50, (5,), generator=generator).tolist() for _ in range(4)]
    plain.generation_config = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0)
    free = plain.generate(torch.tensor(prompts))
    stops = [free[2, -5].item(), free[0, -3].item()]
    options = {"no_repeat_ngram_size": 2, **changes}
    config = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=stops, **options)
    expected = plain.generate(torch.tensor(prompts), generation_config=config)[:, 5:].tolist()
    # the model's own penalty is not asked for, but what ends its answers is
    fast.generation_config = GenerationConfig(repetition_penalty=9.0, eos_token_id=stops)
    got = sample(fast, only_pads(tokenizer), prompts, Sampling(12, 0.0, **options), batch_size=2)
    assert [r.ids for r in got] == [up_to(ids, stops) for ids in expected]
    assert [r.finished for r in got] == [not set(stops).isdisjoint(ids) for ids in expected]
    assert fast.generation_config.repetition_penalty == 9.0


# ---- Sampling


SAMPLING = Sampling(12, temperature=0.8)
KINDS_OF_SAMPLING = pytest.mark.parametrize(
    "sampling",
    [
        SAMPLING,
        Sampling(12, temperature=0.8, top_k=20),
        Sampling(12, temperature=0.8, top_p=0.9, min_new_tokens=2),
        Sampling(12, temperature=0.0),
    ],
    ids=["all tokens", "top-k", "top-p", "greedy"],
)


@KINDS_OF_SAMPLING
def test_a_response_does_not_depend_on_batch_size_order_or_neighbours(ending, tokenizer, prompts, sampling):
    noise = random_numbers(len(prompts), sampling, 4)
    together = sample(ending, tokenizer, prompts, sampling, noise=noise)
    if sampling.temperature > 0:
        assert len({len(response.ids) for response in together}) > 2  # rows leave the batch at different steps
    for size in (1, 2, 4):
        same(together, sample(ending, tokenizer, prompts, sampling, noise=noise, batch_size=size))
    order = [4, 0, 5, 2, 1, 3]
    permuted = sample(ending, tokenizer, [prompts[i] for i in order], sampling, noise=noise[order])
    same([together[i] for i in order], permuted)
    same(together[2:4], sample(ending, tokenizer, prompts[2:4], sampling, noise=noise[2:4]))


def test_rows_that_left_the_batch_change_nothing_for_those_that_stay(ending, tokenizer):
    prompts = [[20 + i % 7, 40 + i % 5] for i in range(40)]
    noise = random_numbers(40, SAMPLING, 7)
    together = sample(ending, tokenizer, prompts, SAMPLING, noise=noise)
    assert {1, 2, 3, 4, 5, 12} <= {len(response.ids) for response in together}
    same(together, sample(ending, tokenizer, prompts, SAMPLING, noise=noise, batch_size=1))


def test_responses_end_with_their_first_eos_or_at_the_longest_length(ending, tokenizer, prompts):
    responses = sample(ending, tokenizer, prompts * 10, SAMPLING, seed=7)
    for response in responses:
        assert response.ids.count(tokenizer.eos_token_id) == response.finished
        assert response.ids[-1] == tokenizer.eos_token_id if response.finished else len(response.ids) == 12
    assert {response.finished for response in responses} == {True, False}


@pytest.mark.parametrize(("temperature", "another"), [(0.2, 1.0), (1.0, 0.2)])
def test_sampling_follows_the_policy_at_the_temperature(policy, tokenizer, temperature, another):
    prompt, draws = [30, 31, 32], 4000
    responses = sample(policy, tokenizer, [prompt] * draws, Sampling(1, temperature), batch_size=draws)
    counts = torch.bincount(tensor([r.ids[0] for r in responses]), minlength=policy.config.vocab_size)

    def chi_square_over_freedom(at):
        expected = next_probabilities(policy, prompt, at) * draws
        likely = expected >= 5
        observed = torch.cat([counts[likely], counts[~likely].sum().unsqueeze(0)])
        expected = torch.cat([expected[likely], expected[~likely].sum().unsqueeze(0)]).clamp(min=1e-3)
        return ((observed - expected).square() / expected).sum().item() / (len(expected) - 1)

    # 1 on average, with a standard deviation of (2 / freedom) ** 0.5
    assert chi_square_over_freedom(temperature) < 2.5
    assert chi_square_over_freedom(another) > 10


def test_draws_are_those_of_the_inverse_distribution_function():
    probabilities = tensor([[0.0, 0.5, 0.0, 0.25, 0.25, 0.0]])
    noise = [0.0, 0.25, 0.5, 0.625, 0.75, 0.875, ALMOST_1]
    drawn = draw(probabilities.expand(len(noise), -1), tensor(noise).unsqueeze(1))
    assert drawn.tolist() == [1, 1, 3, 3, 4, 4, 4]


@pytest.mark.parametrize("seed", range(5))
def test_no_token_without_probability_is_drawn_even_at_the_ends_of_the_noise(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(200, 1000, generator=generator) * 5
    logits[torch.rand(200, 1000, generator=generator) < 0.5] = -math.inf
    logits[:, -100:] = -math.inf  # where rounding of the sum would lead
    logits[:, :100] = -math.inf
    probabilities = logits.softmax(-1)
    for noise in (0.0, 0.5, ALMOST_1):
        drawn = draw(probabilities, torch.full((200, 1), noise)).unsqueeze(1)
        assert (probabilities.gather(1, drawn) > 0).all()


@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_no_eos_is_drawn_before_min_new_tokens(ending, tokenizer, top_p):
    sampling = Sampling(12, min_new_tokens=5, top_p=top_p)
    responses = sample(ending, tokenizer, [[20 + i] for i in range(50)], sampling)
    lengths = [len(response.ids) for response in responses]
    assert min(lengths) == 6 and {r.ids[5] == tokenizer.eos_token_id for r in responses} == {True, False}
    assert all(tokenizer.eos_token_id not in response.ids[:5] for response in responses)


def test_the_models_mode_is_put_back(policy, tokenizer):
    for mode in (True, False):
        sample(policy.train(mode), tokenizer, [[30]], Sampling(1))
        assert policy.training is mode


# ---- Restricted sampling


RESTRICTED = pytest.mark.parametrize(
    "sampling",
    [
        Sampling(8, 1.3, top_k=5, min_new_tokens=2),
        Sampling(8, 1.3, top_p=0.7, min_new_tokens=2),
        Sampling(8, 1.0, top_k=9, top_p=0.8),
    ],
    ids=["top-k", "top-p", "both"],
)


@RESTRICTED
@torch.no_grad()
def test_logprobs_of_a_response_are_those_of_the_distribution_it_was_drawn_from(ending, tokenizer, prompts, sampling):
    responses = sample(ending, tokenizer, prompts, sampling)
    eos = tokenizer.eos_token_id
    distribution = Distribution(sampling.temperature, sampling.min_new_tokens, (eos,))
    got = response_logprobs(ending, collate(ending, prompts, responses, tokenizer.pad_token_id), distribution)
    expected = []
    for prompt, response in zip(prompts, responses, strict=True):
        assert len(response.support.widths) == len(response.ids)
        for k, (token, support) in enumerate(zip(response.ids, response.support.padded().tolist(), strict=True)):
            logits = ending(tensor([prompt + response.ids[:k]])).logits[0, -1] / sampling.temperature
            if k < sampling.min_new_tokens:
                logits[eos] = -math.inf
            likeliest = logits.argsort(descending=True)[: sampling.top_k or None]
            kept = likeliest[: sum(logits[likeliest].softmax(0).cumsum(0) < sampling.top_p) + 1]
            assert {i for i in support if i >= 0} == set(kept.tolist()) and token in support
            expected.append((logits[token] - logits[kept].logsumexp(0)).item())
    close(got, expected)


# ---- Stop strings


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_response_ends_with_its_first_stop_string(policy, tokenizer, prompts, temperature):
    free = Sampling(12, temperature)
    noise = random_numbers(len(prompts), free, 0)
    plain = sample(policy, tokenizer, prompts, free, noise=noise)
    # The text of two tokens in the middle of a response (of whole characters) is where it is to stop.
    pairs = ((row, tokenizer.decode(r.ids[k : k + 2])) for row, r in enumerate(plain) for k in range(2, 9))
    row, stop = next((row, pair) for row, pair in pairs if "\N{REPLACEMENT CHARACTER}" not in pair)
    until_stop = Sampling(12, temperature, stop_strings=(stop, "no such text"))
    stopped = sample(policy, tokenizer, prompts, until_stop, noise=noise)
    assert stopped[row].finished and tokenizer.decode(stopped[row].ids).endswith(stop)
    assert len(stopped[row].ids) < len(plain[row].ids)
    for one, other in zip(stopped, plain, strict=True):
        assert one.ids == other.ids[: len(one.ids)]
        before = tokenizer.decode(one.ids[:-1])
        assert stop not in before and (len(one.ids) == len(other.ids) or stop in tokenizer.decode(one.ids))


def test_a_stop_string_in_the_prompt_does_not_end_the_response(policy, tokenizer):
    prompt = tokenizer("the cat")["input_ids"]
    (response,) = sample(policy, tokenizer, [prompt], Sampling(4, 0.0, stop_strings=("the cat",)))
    assert len(response.ids) == 4 and not response.finished


# ---- Memory


class BatchedOperands(TorchDispatchMode):
    """The shapes of what batches of matrix products multiplied."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.bmm.default:
            self.shapes |= {tuple(operand.shape) for operand in args}
        return func(*args, **(kwargs or {}))


def test_a_frozen_output_layer_is_not_multiplied_row_by_row(policy, tokenizer):
    """PyTorch would, if it got a slice of the hidden states: for that it copies the layer once a row."""
    frozen = deepcopy(policy).requires_grad_(False)
    with BatchedOperands() as operands:
        sample(frozen, tokenizer, [tokenizer("the cat")["input_ids"]] * 8, SAMPLING)
    assert operands.shapes and not any(policy.config.vocab_size in shape for shape in operands.shapes)
