import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numbers_by_hand import close
from ppo_trainers import ppo_params
from torch import tensor

from rlhf_lib.models.logprobs import Response
from rlhf_lib.ppo.model import with_shared_critic
from rlhf_lib.ppo.rollout import Rollout, minibatches, update_inputs


def small_rollout():
    responses = [Response([5, 0, 2], True), Response([6], False)]
    return Rollout.empty([[1, 2], [3]], responses, tensor([1.0, -2.0]))


def filled_rollout():
    rollout = small_rollout()
    rollout.record("logprobs", [0, 1], tensor([-1.0, -2.0, -3.0, -1.0]))
    rollout.record("ref_logprobs", [0, 1], tensor([-2.0, -2.0, -5.0, -0.5]))
    rollout.record("values", [0, 1], tensor([0.5, 0.0, 1.0, 1.0]))
    rollout.record("entropy", [0, 1], tensor([1.0, 2.0, 3.0, 2.0]))
    return rollout


# ---- Rollouts


def test_the_mask_of_a_rollout_is_that_of_its_responses():
    rollout = small_rollout()
    assert rollout.mask.tolist() == [[True, True, True], [True, False, False]]
    assert rollout.scores.tolist() == [1.0, -2.0]
    assert rollout.lengths == [5, 2]
    assert all(getattr(rollout, name).eq(0).all() for name in ("logprobs", "values", "entropy", "returns"))


def test_record_writes_flat_tokens_to_their_rows_and_flat_reads_them_back():
    rollout = small_rollout()
    rollout.record("values", [1, 0], tensor([4.0, 1.0, 2.0, 3.0]))
    assert rollout.values.tolist() == [[1.0, 2.0, 3.0], [4.0, 0.0, 0.0]]
    assert rollout.flat("values", [1, 0]).tolist() == [4.0, 1.0, 2.0, 3.0]
    assert rollout.flat("values", [0]).tolist() == [1.0, 2.0, 3.0]
    rollout.record("values", [1], tensor([7.0], dtype=torch.bfloat16))
    assert rollout.values.tolist() == [[1.0, 2.0, 3.0], [7.0, 0.0, 0.0]]
    assert rollout.returns.eq(0).all()


def test_kl_of_a_response_is_the_sum_over_its_tokens():
    assert filled_rollout().kl.tolist() == [3.0, -0.5]  # 1 + 0 + 2; -0.5


def test_advantages_of_a_rollout_by_hand():
    rollout = filled_rollout()
    rollout.estimate_advantages(ppo_params(), kl_coef=0.1)
    # rewards -0.1, 0, 1 - 0.2 and -2 + 0.05
    # A: 0.8 - 1 = -0.2; 0 + 0.9 - 0 + 0.45 * -0.2 = 0.81; -0.1 + 0 - 0.5 + 0.45 * 0.81 = -0.2355; -1.95 - 1
    expected = tensor([[-0.2355, 0.81, -0.2], [-2.95, 0.0, 0.0]])
    close(rollout.advantages, expected)
    close(rollout.returns, (expected + rollout.values) * rollout.mask)
    assert rollout.scores.tolist() == [1.0, -2.0]


def test_a_clipped_kl_is_clipped_token_by_token():
    rollout = filled_rollout()
    rollout.estimate_advantages(ppo_params(kl_clip=0.4), kl_coef=0.1)
    # the KL is 0.4, 0, 0.4 and -0.4 instead of 1, 0, 2 and -0.5
    # A: 0.96 - 1 = -0.04; 0.9 + 0.45 * -0.04 = 0.882; -0.04 - 0.5 + 0.45 * 0.882 = -0.1431; -1.96 - 1
    close(rollout.advantages, tensor([[-0.1431, 0.882, -0.04], [-2.96, 0.0, 0.0]]))
    assert rollout.kl.tolist() == [3.0, -0.5]  # what is logged is not clipped


def test_a_clip_of_the_kl_is_of_the_one_in_the_reward():
    with pytest.raises(ValueError, match="^kl_clip: is of the penalty in the reward"):
        ppo_params(kl_in="loss", kl_estimator="k3", kl_clip=1.0)


def test_a_kl_in_the_loss_is_not_in_the_rewards():
    rollout, without = filled_rollout(), filled_rollout()
    rollout.estimate_advantages(ppo_params(kl_in="loss", kl_estimator="k3"), kl_coef=0.1)
    without.estimate_advantages(ppo_params(), kl_coef=0.0)
    assert rollout.advantages.equal(without.advantages) and rollout.returns.equal(without.returns)


def test_whitened_rewards_keep_their_mean_s_sign():
    rollout = filled_rollout()
    rollout.estimate_advantages(ppo_params(whiten_rewards=True, gamma=1.0, lam=1.0), kl_coef=0.1)
    # rewards -0.1, 0, 0.8, -1.95 of mean -0.3125 and squares 4.4525 / 4: std (1.113125 - 0.09765625) ** 0.5 = 1.007705
    # returns are sums of the rewards over it: 0.7, 0.8, 0.8 and -1.95
    close(rollout.returns, [[0.694648, 0.793883, 0.793883], [-1.935090, 0.0, 0.0]], 1e-5)


def test_whitening_leaves_the_returns_alone():
    plain, white = filled_rollout(), filled_rollout()
    plain.estimate_advantages(ppo_params(), 0.1)
    white.estimate_advantages(ppo_params(whiten_advantages=True), 0.1)
    assert white.returns.equal(plain.returns)
    kept = white.advantages[white.mask]
    assert kept.mean().item() == pytest.approx(0, abs=1e-6)
    assert kept.var(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert white.advantages[~white.mask].eq(0).all()


def test_metrics_of_a_rollout_by_hand():
    rollout = filled_rollout()
    rollout.estimate_advantages(ppo_params(gamma=1.0, lam=1.0), 0.0)
    metrics = rollout.metrics(ppo_params())
    assert metrics["score"] == -0.5
    assert metrics["kl"] == 1.25  # (3 - 0.5) / 2
    assert metrics["length"] == 2.0
    assert metrics["eos_rate"] == 0.5
    assert metrics["entropy"] == 2.0  # 8 / 4 tokens
    assert metrics["returns"] == 0.25  # (1 + 1 + 1 - 2) / 4 tokens
    # returns 1, 1, 1, -2 of variance 1.6875; less the values 0.5, 0, 1, 1: 0.5, 1, 0, -3 of variance 2.421875
    assert metrics["explained_variance"] == pytest.approx(1 - 2.421875 / 1.6875)


# ---- Minibatches


LENGTHS = [9, 3, 7, 3, 5, 8, 1, 6]


@given(permutation=st.permutations(range(8)), micro=st.sampled_from([1, 2, 4]))
@settings(max_examples=30, deadline=None)
def test_minibatches_are_a_partition_that_the_micro_batch_size_does_not_change(permutation, micro):
    split = minibatches(permutation, LENGTHS, ppo_params(per_device_train_batch_size=micro))
    steps = [[i for rows in minibatch for i in rows] for minibatch in split]
    assert [set(step) for step in steps] == [set(permutation[:4]), set(permutation[4:])]
    assert sorted(steps[0] + steps[1]) == list(range(8))
    assert all(len(rows) == micro for minibatch in split for rows in minibatch)
    whole = minibatches(permutation, LENGTHS, ppo_params(per_device_train_batch_size=4))
    assert steps == [minibatch[0] for minibatch in whole]
    assert all([LENGTHS[i] for i in step] == sorted(LENGTHS[i] for i in step) for step in steps)


def test_micro_batches_hold_the_answers_to_a_prompt():
    params = ppo_params(num_generations=2, per_device_train_batch_size=2)
    # prompts of rows 0 and 1, 2 and 3, 4 and 5, 6 and 7, the longest of whose rows have 9, 7, 8 and 6 tokens
    split = minibatches([4, 5, 0, 1, 6, 7, 2, 3], LENGTHS, params)
    assert split == [[[4, 5], [1, 0]], [[6, 7], [3, 2]]]


@pytest.fixture
def scored_rollout():
    rollout = filled_rollout()
    rollout.estimate_advantages(ppo_params(), 0.1)
    return rollout


NAMES = ("logprobs", "ref_logprobs", "values", "advantages", "returns")


def test_update_inputs_are_the_micro_batches_tokens_and_the_whole_minibatch_s_token_count(policy, scored_rollout):
    one, other = update_inputs(scored_rollout, [[1], [0]], with_shared_critic(policy).collate, pad_id=0)
    assert one["num_tokens"] == other["num_tokens"] == 4
    assert one["batches"].policy.inputs["input_ids"][0, :2].tolist() == [3, 6]
    assert other["batches"].policy.inputs["input_ids"][0, :5].tolist() == [1, 2, 5, 0, 2]
    assert other["batches"].policy.token_ids.tolist() == [5, 0, 2]
    for name in NAMES:
        assert one[name].tolist() == getattr(scored_rollout, name)[1, :1].tolist()
        assert other[name].tolist() == getattr(scored_rollout, name)[0].tolist()


def test_update_inputs_of_two_rows_are_flat_row_after_row(policy, scored_rollout):
    (both,) = update_inputs(scored_rollout, [[1, 0]], with_shared_critic(policy).collate, pad_id=0)
    assert both["batches"].policy.token_ids.tolist() == [6, 5, 0, 2]
    for name in NAMES:
        assert both[name].tolist() == scored_rollout.flat(name, [1, 0]).tolist()


def test_a_process_gets_its_part_of_the_micro_batches_and_the_token_count_of_all(policy, scored_rollout):
    minibatch = [[1], [0]]
    (second,) = update_inputs(scored_rollout, minibatch, with_shared_critic(policy).collate, 0, slice(1, None, 2))
    assert second["batches"].policy.token_ids.tolist() == [5, 0, 2] and second["num_tokens"] == 4
