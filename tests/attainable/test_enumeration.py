"""A model so small that all its answers can be listed: the optimum is known without a sample."""

from itertools import product

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rlhf_lib.attainable import estimates
from rlhf_lib.models.logprobs import Distribution, Response, sequence_logprobs

EOS, LENGTH, VOCABULARY = 0, 3, 5
PROMPTS = [[1, 2], [4, 4, 3]]
BETAS = [0.05, 0.3, 1.0, 4.0]


def all_answers():
    """Every answer of at most `LENGTH` tokens: it ends with its first EOS, or is cut."""
    words = range(1, VOCABULARY)
    ended = [[*start, EOS] for size in range(LENGTH) for start in product(words, repeat=size)]
    return [*ended, *map(list, product(words, repeat=LENGTH))]


@pytest.fixture(scope="module")
def listed():
    """(P, A) probabilities of all answers to each prompt, and their rewards."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=8, n_embd=8, n_layer=1, n_head=1, eos_token_id=EOS)
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        model.transformer.wte.weight.mul_(10)
    answers = all_answers()
    responses = [Response(ids, ids[-1] == EOS) for ids in answers]
    rows = [
        sequence_logprobs(model, [prompt] * len(answers), responses, EOS, Distribution(), batch_size=128)
        for prompt in PROMPTS
    ]
    rewards = torch.randn(len(PROMPTS), len(answers), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    probabilities = np.exp(np.array(rows))
    assert probabilities.sum(axis=1) == pytest.approx(1, abs=1e-6)
    return probabilities / probabilities.sum(axis=1, keepdims=True), rewards.numpy()


def test_the_answers_are_all_that_there_are(listed):
    probabilities, _ = listed
    assert probabilities.shape == (2, 1 + 4 + 16 + 64)
    assert probabilities.max() < 0.7 and probabilities.min() < 5e-3  # neither sure nor flat


@pytest.mark.parametrize("beta", BETAS)
def test_no_policy_is_better_than_the_formula_says(listed, beta):
    """What any other reaches is less by beta times its KL to the best one, which makes that the only optimum."""
    probabilities, rewards = listed
    reached = estimates.objective(rewards, beta, probabilities)
    best = estimates.weights(rewards, beta, probabilities)
    distance = estimates.kl(rewards, beta, probabilities)
    assert reached == pytest.approx((best * rewards).sum(axis=1) - beta * distance, abs=1e-9)
    random = np.random.default_rng(2)
    for sharpness in (0.01, 0.1, 1.0, 3.0):
        near = np.log(best) + sharpness * random.normal(size=(50, *best.shape))
        other = np.exp(near) / np.exp(near).sum(axis=-1, keepdims=True)
        objective = (other * (rewards - beta * np.log(other / probabilities))).sum(axis=-1)
        assert (objective < reached).all()
        assert reached - objective == pytest.approx(beta * (other * np.log(other / best)).sum(axis=-1), abs=1e-9)


@pytest.mark.parametrize("beta", BETAS)
def test_the_numbers_are_those_of_the_sums(listed, beta):
    """beta log sum p exp(r / beta), and E[r] / beta - log Z, term by term."""
    probabilities, rewards = listed
    powers = probabilities * np.exp(rewards / beta)
    partition = powers.sum(axis=1)
    mean = (powers * rewards).sum(axis=1) / partition
    assert estimates.objective(rewards, beta, probabilities) == pytest.approx(beta * np.log(partition), abs=1e-9)
    share = estimates.weights(rewards, beta, probabilities)
    assert share == pytest.approx(powers / partition[:, None], abs=1e-9)
    assert estimates.kl(rewards, beta, probabilities) == pytest.approx(mean / beta - np.log(partition), abs=1e-9)


def replicates(probabilities, rewards, n, count):
    """Rewards (count, n) of answers drawn from one prompt's distribution."""
    drawn = np.random.default_rng(n).choice(len(rewards), size=(count, n), p=probabilities)
    return rewards[drawn]


@pytest.mark.parametrize("beta", [0.5, 1.0])
@pytest.mark.parametrize("row", range(len(PROMPTS)))
def test_estimates_from_samples_are_right_within_their_errors(listed, row, beta):
    """And the plain objective falls short by what theory says, of which the jackknife leaves little."""
    probabilities, rewards = listed[0][[row]], listed[1][[row]]
    objective = estimates.objective(rewards, beta, probabilities)[0]
    share = estimates.weights(rewards, beta, probabilities)
    reward, kl = (share * rewards).sum(), estimates.kl(rewards, beta, probabilities)[0]
    n, count = 256, 4000
    found = estimates.best(replicates(probabilities[0], rewards[0], n, count), beta)
    for values, exact in ((found.objective, objective), (found.reward, reward), (found.kl, kl)):
        assert abs(values.mean() - exact) < 4 * values.std() / count**0.5 + 1e-3 * abs(exact)
    powers = np.exp(rewards[0] / beta)
    mean = (probabilities[0] * powers).sum()
    spread = (probabilities[0] * (powers / mean - 1) ** 2).sum()
    shortfall = -beta * spread / (2 * n)
    assert (found.plain - objective).mean() == pytest.approx(shortfall, abs=4 * found.plain.std() / count**0.5)
    assert abs((found.objective - objective).mean()) < 4 * found.objective.std() / count**0.5


def test_the_shortfall_shrinks_with_n_and_the_jackknifes_faster(listed):
    probabilities, rewards = listed[0][0], listed[1][0]
    exact = estimates.objective(rewards[None], 0.5, probabilities[None])[0]
    plain, corrected = [], []
    for n in (8, 32, 128):
        found = estimates.best(replicates(probabilities, rewards, n, 20_000), 0.5)
        plain.append(exact - found.plain.mean())
        corrected.append(abs(exact - found.objective.mean()))
    assert plain[0] > 3 * plain[1] > 9 * plain[2] > 0
    assert all(after < before / 3 for before, after in zip(plain, corrected, strict=True))
