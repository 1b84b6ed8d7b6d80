import math
from itertools import pairwise

import numpy as np
import pytest

from rlhf_lib.attainable import estimates

LN2, LN3 = math.log(2), math.log(3)
RANDOM = np.random.default_rng(0).normal(size=(3, 7))


def test_two_answers_by_hand():
    """Rewards 0 and log 3 at beta 1: their powers are 1 and 3."""
    rewards, values = np.array([[0.0, LN3]]), {"gold": np.array([[1.0, 0.0]])}
    assert estimates.weights(rewards, 1.0) == pytest.approx(np.array([[0.25, 0.75]]))
    assert estimates.objective(rewards, 1.0) == pytest.approx([LN2])
    assert estimates.kl(rewards, 1.0) == pytest.approx([0.75 * math.log(1.5) - 0.25 * LN2])
    found = estimates.best(rewards, 1.0, values)
    assert found.ess == pytest.approx([1.6])
    assert found.plain == pytest.approx([LN2])
    # twice the whole, less the mean of what each has alone
    assert found.objective == pytest.approx([2 * LN2 - LN3 / 2])
    assert found.reward == pytest.approx([2 * 0.75 * LN3 - LN3 / 2])
    assert found.kl == pytest.approx([1.5 * LN3 - 2 * LN2])
    assert found.values["gold"] == pytest.approx([2 * 0.25 - 0.5])


def test_half_the_beta_by_hand():
    """The powers are 1 and 9."""
    rewards = np.array([[0.0, LN3]])
    assert estimates.weights(rewards, 0.5) == pytest.approx(np.array([[0.1, 0.9]]))
    assert estimates.objective(rewards, 0.5) == pytest.approx([0.5 * math.log(5)])


def test_answers_weigh_by_their_probability_where_all_are_listed():
    rewards, prior = np.array([[0.0, LN3]]), np.array([[0.9, 0.1]])
    assert estimates.weights(rewards, 1.0, prior) == pytest.approx(np.array([[0.75, 0.25]]))
    assert estimates.objective(rewards, 1.0, prior) == pytest.approx([math.log(1.2)])
    assert estimates.kl(rewards, 1.0, prior) == pytest.approx([0.75 * math.log(0.75 / 0.9) + 0.25 * math.log(2.5)])


@pytest.mark.parametrize("beta", [0.001, 0.05, 0.7, 30.0])
@pytest.mark.parametrize(
    "rewards",
    [RANDOM, np.array([[1.0, 1.0, 0.0, 1.0]]), np.array([[2.0, 2.0, 2.0]]), np.array([[0.0, 5.0]])],
    ids=["random", "best-thrice", "all-alike", "two"],
)
def test_the_jackknife_leaves_out_each_answer_in_turn(rewards, beta):
    n = rewards.shape[1]
    values = np.cos(3 * rewards) + np.arange(n)
    found = estimates.best(rewards, beta, {"value": values})

    def left(of):
        return [of(np.delete(rewards, i, axis=1), np.delete(values, i, axis=1)) for i in range(n)]

    def jackknifed(of):
        return n * of(rewards, values) - (n - 1) * np.mean(left(of), axis=0)

    objective = jackknifed(lambda r, _: estimates.objective(r, beta))
    reward = jackknifed(lambda r, _: (estimates.weights(r, beta) * r).sum(axis=1))
    assert found.objective == pytest.approx(objective, abs=1e-9)
    assert found.reward == pytest.approx(reward, abs=1e-9)
    assert found.kl == pytest.approx((reward - objective) / beta, abs=1e-6)
    assert found.values["value"] == pytest.approx(
        jackknifed(lambda r, v: (estimates.weights(r, beta) * v).sum(axis=1)), abs=1e-9
    )


def test_an_endless_beta_gives_the_sft_model():
    found = estimates.best(RANDOM, 1e7, {"value": RANDOM**2})
    assert found.objective == pytest.approx(RANDOM.mean(axis=1), abs=1e-6)
    assert found.reward == pytest.approx(RANDOM.mean(axis=1), abs=1e-6)
    assert found.values["value"] == pytest.approx((RANDOM**2).mean(axis=1), abs=1e-5)
    assert found.kl == pytest.approx(np.zeros(3), abs=1e-6)
    assert found.ess == pytest.approx(np.full(3, 7.0))


def test_no_beta_gives_the_best_of_n():
    rewards = np.array([[0.0, 3.0, 1.0, 3.0], [5.0, 1.0, 1.0, 1.0]])
    assert estimates.objective(rewards, 0.0) == pytest.approx([3.0, 5.0])
    assert estimates.weights(rewards, 0.0).tolist() == [[0, 0.5, 0, 0.5], [1, 0, 0, 0]]
    assert estimates.kl(rewards, 0.0) == pytest.approx([math.log(2), math.log(4)])
    near = estimates.best(rewards, 1e-6)
    assert near.plain == pytest.approx([3.0, 5.0], abs=1e-5)
    assert near.ess == pytest.approx([2.0, 1.0])
    # the jackknife of a maximum: (n - 1) / n of the way to the second best is added
    assert near.objective == pytest.approx([3.0, 5.0 + 3 / 4 * 4.0], abs=1e-4)


def test_less_beta_is_more_objective_and_more_kl():
    betas = [0.01, 0.1, 0.5, 1.0, 5.0, 50.0]
    objectives = [estimates.objective(RANDOM, beta) for beta in betas]
    distances = [estimates.kl(RANDOM, beta) for beta in betas]
    for i, j in pairwise(range(len(betas))):
        assert (objectives[i] > objectives[j]).all() and (distances[i] > distances[j]).all()
    assert (distances[0] <= math.log(7)).all() and (distances[-1] >= 0).all()


def test_rewards_may_have_any_zero_and_any_unit():
    found, moved = estimates.best(RANDOM, 0.3), estimates.best(10 * RANDOM - 700, 3.0)
    assert moved.objective == pytest.approx(10 * found.objective - 700)
    assert moved.reward == pytest.approx(10 * found.reward - 700)
    assert moved.kl == pytest.approx(found.kl) and moved.ess == pytest.approx(found.ess)


def test_the_beta_of_a_distance():
    rewards = np.random.default_rng(1).normal(size=(20, 64))
    for distance in (0.02, 0.5, 1.5):
        beta = estimates.beta_at(rewards, distance)
        assert estimates.best(rewards, beta).kl.mean() == pytest.approx(distance, abs=1e-6)


@pytest.mark.parametrize("distance", [0.0, -0.1, 6.0])
def test_no_beta_is_as_far_as_that(distance):
    assert estimates.beta_at(np.random.default_rng(1).normal(size=(20, 64)), distance) is None


def test_a_reward_that_tells_no_answer_from_another_leads_nowhere():
    assert estimates.beta_at(np.ones((3, 5)), 0.5) is None
