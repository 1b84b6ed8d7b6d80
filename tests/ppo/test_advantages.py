"""Advantages without a critic, by hand. Two prompts with four responses each: one group with a spread, one without."""

import pytest
import torch
from numbers_by_hand import close
from ppo_trainers import ppo_params
from torch import tensor

from rlhf_lib.models.logprobs import Response
from rlhf_lib.ppo import advantages
from rlhf_lib.ppo.rollout import Rollout

REWARDS = tensor([1.0, 2.0, 3.0, 6.0, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
NONE = [0.0] * 4


def without_critic(**changes):
    return ppo_params(**{"critic": "none", "num_generations": 4, "gamma": 1.0, **changes})


def test_leave_one_out():
    # 1 less (2 + 3 + 6) / 3, 2 less (1 + 3 + 6) / 3, 3 less 9 / 3, 6 less 6 / 3
    close(advantages.leave_one_out(REWARDS, 4), [-2.666667, -1.333333, 0.0, 4.0, *NONE])


def test_group_mean():
    close(advantages.group_mean(REWARDS, 4), [-2.0, -1.0, 0.0, 3.0, *NONE])


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("none", [-2.0, -1.0, 0.0, 3.0]),
        ("running", [-2.0, -1.0, 0.0, 3.0]),
        # (4 + 1 + 0 + 9) / 3 = 4.666667, whose root is 2.160247
        ("group", [-0.925777, -0.462889, 0.0, 1.388666]),
        # of mean 1.5: (0.25 + 0.25 + 2.25 + 20.25 + 4 x 2.25) / 7 = 4.571429, whose root is 2.138090
        ("batch", [-0.935371, -0.467685, 0.0, 1.403056]),
    ],
)
def test_scales(by, expected):
    close(advantages.scaled(advantages.group_mean(REWARDS, 4), REWARDS, 4, by), [*expected, *NONE])


def test_normalised_are_of_mean_0_and_variance_1_over_the_responses():
    # of mean 0: (7.111111 + 1.777778 + 16) / 7 = 3.555556, whose root is 1.885618
    found = advantages.normalised(advantages.leave_one_out(REWARDS, 4))
    close(found, [-1.414139, -0.707069, 0.0, 2.121208, *NONE])
    moved = advantages.normalised(REWARDS)
    close(moved.mean(), 0.0)
    close(moved.std(), 1.0, 1e-4)


@pytest.mark.parametrize("reward", [0.7, 3.3, 1000.1, 12345.678])
@pytest.mark.parametrize("copies", [3, 6, 7, 8])
def test_equal_rewards_teach_nothing_whatever_their_units(reward, copies):
    rewards = torch.full((2 * copies,), reward)
    for advantage in (advantages.group_mean, advantages.leave_one_out):
        found = advantage(rewards, copies)
        assert advantages.scaled(found, rewards, copies, "group").eq(0).all()
        assert advantages.normalised(found).eq(0).all()


def test_groups_without_a_spread_are_counted():
    assert advantages.equal_groups(REWARDS, 4) == 0.5
    assert advantages.equal_groups(REWARDS, 2) == 0.5


# ---- In a rollout


def rollout():
    """Two responses of three tokens and of one; log-ratios to the reference 1, 0, 2 and -0.5."""
    made = Rollout.empty([[3], [3]], [Response([5, 0, 2], True), Response([6], False)], tensor([1.0, -2.0]))
    made.record("logprobs", [0, 1], tensor([-1.0, -2.0, -1.0, -1.5]))
    made.record("ref_logprobs", [0, 1], tensor([-2.0, -2.0, -3.0, -1.0]))
    return made


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # rewards with the KL of all tokens: 1 - 0.1 x 3 = 0.7 and -2 + 0.1 x 0.5 = -1.95
        ({"advantage_estimator": "rloo"}, [2.65, -2.65]),
        ({"advantage_estimator": "grpo"}, [1.325, -1.325]),
        # their standard deviation is 2.65 / 2 ** 0.5 = 1.873833
        ({"advantage_estimator": "grpo", "scale_rewards": "group"}, [0.707069, -0.707069]),
        # that of the advantages 2.65 and -2.65 is twice that
        ({"advantage_estimator": "rloo", "whiten_advantages": True}, [0.707088, -0.707088]),
        # without the KL
        ({"advantage_estimator": "rloo", "kl_in": "loss", "kl_estimator": "k3"}, [3.0, -3.0]),
        # k2: 1 - 0.1 x (0.5 + 0 + 2) and -2 - 0.1 x 0.125
        ({"advantage_estimator": "rloo", "kl_estimator": "k2"}, [2.7625, -2.7625]),
    ],
)
def test_the_tokens_of_a_response_share_its_advantage(changes, expected):
    made = rollout()
    made.estimate_advantages(without_critic(num_generations=2, **changes), kl_coef=0.1)
    first, second = expected
    close(made.advantages, [[first] * 3, [second, 0.0, 0.0]])


def test_reinforce_gives_a_token_the_rewards_from_it_on():
    made = rollout()
    made.estimate_advantages(without_critic(advantage_estimator="reinforce", gamma=0.5), kl_coef=0.1)
    # rewards -0.1, 0, 1 - 0.2 and -2 + 0.05: 0.8, half of it, and -0.1 with a quarter of it
    close(made.advantages, [[0.1, 0.4, 0.8], [-1.95, 0.0, 0.0]])


def test_reinforce_plus_plus_whitens_them_over_the_tokens():
    made = rollout()
    changes = {"advantage_estimator": "reinforce", "gamma": 0.5, "whiten_advantages": True}
    made.estimate_advantages(without_critic(**changes), kl_coef=0.1)
    # mean -0.1625, variance (0.01 + 0.16 + 0.64 + 3.8025) / 4 - 0.02640625 = 1.12671875, whose root is 1.061470
    close(made.advantages, [[0.247299, 0.529926, 0.906761], [-1.683985, 0.0, 0.0]])


@pytest.mark.parametrize("estimator", ["rloo", "grpo", "reinforce"])
def test_metrics_are_without_those_of_a_critic(estimator):
    made, params = rollout(), without_critic(advantage_estimator=estimator, num_generations=2)
    made.estimate_advantages(params, kl_coef=0.1)
    measured = made.metrics(params)
    assert not {"returns", "explained_variance"} & set(measured)
    assert measured.get("frac_reward_zero_std") == (None if estimator == "reinforce" else 0.0)
