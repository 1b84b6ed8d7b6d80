"""Which of PPO's KL penalties has the gradient of the KL, by the probabilities of all answers of two tokens."""

import dataclasses
from itertools import product

import pytest
import torch
from project import DEMO

from rlhf_lib.attainable import objective
from rlhf_lib.common.schema import read
from rlhf_lib.ppo import algos
from rlhf_lib.ppo.params import PPOParams

PPO = read("ppo", PPOParams, DEMO)
VOCABULARY = 3
ANSWERS = torch.tensor(list(product(range(VOCABULARY), repeat=2)))
ALL = torch.ones(ANSWERS.shape, dtype=torch.bool)


def logprobs(table):
    """(A, 2) log-probs of the answers' tokens: of the first by row 0, of the second by the row of the first."""
    rows = table.log_softmax(-1)
    first, second = ANSWERS.unbind(dim=1)
    return torch.stack([rows[0, first], rows[1 + first, second]], dim=1)


def tables():
    """(4, 3) logits of a policy, with a gradient, and of a reference."""
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(2, 1 + VOCABULARY, VOCABULARY, generator=generator, dtype=torch.float64)
    return policy.requires_grad_(), reference


def expected_gradient(kl_in, estimator, corrected):
    """(4, 3) what PPO's loss has for a gradient at its first step, in expectation over the answers, without rewards."""
    policy, reference = tables()
    of_policy, of_reference = logprobs(policy), logprobs(reference)
    old = of_policy.detach()
    if kl_in == "reward":
        kl = algos.kl_estimate(old, of_reference, estimator)
        rewards = algos.token_rewards(torch.zeros(len(ANSWERS)), kl, 1.0, ALL)
        advantages, _ = algos.gae(rewards, torch.zeros_like(rewards), ALL, gamma=1.0, lam=1.0)
        losses = algos.policy_loss(of_policy, old, advantages, cliprange=0.2).loss
    else:
        losses = algos.kl_estimate(of_policy, of_reference, estimator)
        losses = losses * (of_policy - old).exp() if corrected else losses
    weight = old.sum(dim=1, keepdim=True).exp()
    return torch.autograd.grad((weight * losses).sum(), policy)[0]


def kl_gradient():
    policy, reference = tables()
    of_policy = logprobs(policy)
    kl = (of_policy.sum(dim=1).exp() * (of_policy - logprobs(reference)).sum(dim=1)).sum()
    return torch.autograd.grad(kl, policy)[0]


WAYS = [
    *(("reward", estimator, False) for estimator in ("k1", "k2", "k3")),
    *(("loss", estimator, corrected) for estimator in ("k2", "k3") for corrected in (False, True)),
]


@pytest.mark.parametrize(("kl_in", "estimator", "corrected"), WAYS)
def test_it_is_told_where_the_gradient_is_not_that_of_the_kl(kl_in, estimator, corrected):
    off = (expected_gradient(kl_in, estimator, corrected) - kl_gradient()).norm() / kl_gradient().norm()
    changes = {"kl_in": kl_in, "kl_estimator": estimator, "use_bias_correction_kl": corrected}
    told = list(objective.departures(dataclasses.replace(PPO, **changes)))
    assert off < 1e-9 if not told else off > 0.1


@pytest.mark.parametrize(("estimator", "corrected"), [("k2", False), ("k3", True)])
def test_in_the_loss_it_is_that_of_each_tokens_own_kl(estimator, corrected):
    """So that it is right for last tokens, after which there is no more KL, and for no others."""
    found, expected = expected_gradient("loss", estimator, corrected), kl_gradient()
    torch.testing.assert_close(found[1:], expected[1:])
    assert (found[0] - expected[0]).norm() > 0.1 * expected[0].norm()
