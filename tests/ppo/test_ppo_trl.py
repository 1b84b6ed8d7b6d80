"""Our PPO beside the formulae of TRL 1.12 (trl/experimental/ppo/ppo_trainer.py; numbers in comments are its lines).

Where every response ends with its EOS, all have one length and nothing is padded, both agree. Where TRL is at fault,
a test states the right number, worked out by hand, and the one that TRL comes to.
"""

import pytest
import torch
from numbers_by_hand import close
from ppo_trainers import ppo_params
from torch import tensor
from trl_ppo import trl_gae, trl_losses, trl_masks, trl_mean, trl_rewards, trl_whiten

from rlhf_lib.models.logprobs import Response
from rlhf_lib.ppo import algos
from rlhf_lib.ppo.model import with_shared_critic
from rlhf_lib.ppo.rollout import Rollout, update_inputs

ROWS, LENGTH = 8, 9
PAD, EOS = 0, 1


# ---- Where both are right


def full_rollout(seed=0):
    """A random rollout of responses of one length that end with the EOS, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    responses = [Response([5] * (LENGTH - 1) + [EOS], True) for _ in range(ROWS)]
    rollout = Rollout.empty([[3]] * ROWS, responses, random(ROWS))
    for name in ("logprobs", "ref_logprobs", "values"):
        setattr(rollout, name, random(ROWS, LENGTH))
    return rollout


def trl_advantages(rollout, params):
    """TRL's, not whitened, from the rollout's scores, log-probs and values; and its masks."""
    ids = tensor([response.ids for response in rollout.responses])
    *masks, at = trl_masks(ids, PAD)
    log_ratio = rollout.ref_logprobs - rollout.logprobs
    kl = -log_ratio if params.kl_estimator == "k1" else log_ratio.exp() - 1 - log_ratio
    rewards = trl_rewards(rollout.scores, kl, params.kl_coef, at)
    return *trl_gae(rewards, rollout.values, params.gamma, params.lam), masks


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 1.0), (0.9, 0.0)])
@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_advantages_and_returns_are_those_of_trl(estimator, gamma, lam):
    params, rollout = ppo_params(kl_estimator=estimator, gamma=gamma, lam=lam), full_rollout()
    rollout.estimate_advantages(params, params.kl_coef)
    advantages, returns, _ = trl_advantages(rollout, params)
    close(rollout.advantages, advantages)
    close(rollout.returns, returns)


def test_whitened_advantages_are_those_of_trl_but_for_the_variance_over_n_less_1():
    params, rollout = ppo_params(whiten_advantages=True), full_rollout()
    rollout.estimate_advantages(params, params.kl_coef)
    advantages, returns, masks = trl_advantages(rollout, params)
    n = ROWS * LENGTH
    close(rollout.advantages * ((n - 1) / n) ** 0.5, trl_whiten(advantages, masks[0]))
    close(rollout.returns, returns)


def test_losses_and_gradients_are_those_of_trl():
    params, rollout = ppo_params(cliprange=0.2, cliprange_value=0.3), full_rollout()
    rollout.estimate_advantages(params, params.kl_coef)
    advantages, returns, masks = trl_advantages(rollout, params)
    noise = full_rollout(seed=1)
    new, values = rollout.logprobs + 0.3 * noise.logprobs, rollout.values + 0.3 * noise.values
    ours, theirs = ([x.clone().requires_grad_() for x in (new, values)] for _ in range(2))

    flat = [x.flatten() for x in (*ours, rollout.logprobs, rollout.values, rollout.advantages, rollout.returns)]
    policy = algos.policy_loss(flat[0], flat[2], flat[4], params.cliprange)
    value = algos.value_loss(flat[1], flat[3], flat[5], params.cliprange_value)
    (policy.loss.sum() + params.vf_coef * value.sum()).div(len(flat[0])).backward()

    clips = (params.cliprange, params.cliprange_value)
    expected = trl_losses(theirs[0], rollout.logprobs, theirs[1], rollout.values, advantages, returns, masks, clips)
    (expected[0] + params.vf_coef * expected[1]).backward()  # 847

    close(policy.loss.mean(), expected[0])
    close(value.mean(), expected[1])
    for one, other in zip(ours, theirs, strict=True):
        close(one.grad, other.grad)
        assert 0 < one.grad.eq(0).sum() < one.numel() / 2  # some clipped


# ---- Faults: the score and its mask


def short_rollout(response, score, values):
    """One response, in a batch where a longer one makes its row five wide."""
    rollout = Rollout.empty(
        [[3], [3]], [Response(response, True), Response([5] * 4 + [EOS], True)], tensor([score, 0.0])
    )
    rollout.record("values", [0], tensor(values))
    return rollout


def test_the_score_belongs_on_the_last_token_and_not_on_the_pad_after_it():
    rollout = short_rollout([5, 6, EOS], 1.0, [0.5, 0.5, 0.5])
    rollout.estimate_advantages(ppo_params(gamma=1.0, lam=0.0, kl_coef=0.0), kl_coef=0.0)
    # The EOS gets 1 - 0.5; before it the value neither rises nor falls.
    close(rollout.advantages[0], [0.0, 0.0, 0.5, 0.0, 0.0])
    # TRL (778) credits the pad at position 3, and its critic's value there, say 0.25, passes for the EOS's outcome.
    of_policy, of_critic, at = trl_masks(tensor([[5, 6, EOS, PAD, PAD]]), PAD)
    assert at.tolist() == [3] and of_policy.sum() == 3 and of_critic.sum() == 4
    values = tensor([[0.5, 0.5, 0.5, 0.25, 0.0]])
    advantages, _ = trl_gae(trl_rewards(tensor([1.0]), torch.zeros(1, 5), 0.0, at), values, 1.0, 0.0)
    close(advantages * of_policy, [[0.0, 0.0, -0.25, 0.0, 0.0]])


def test_a_discounted_return_does_not_depend_on_how_wide_the_batch_is():
    rollout = short_rollout([5, 6, EOS], 1.0, [0.0, 0.0, 0.0])
    rollout.estimate_advantages(ppo_params(gamma=0.5, lam=1.0), kl_coef=0.0)
    close(rollout.returns[0], [0.25, 0.5, 1.0, 0.0, 0.0])
    for ids, expected in (([5, 6, EOS], [0.25, 0.5, 1.0]), ([5, 6, EOS, PAD, PAD], [0.125, 0.25, 0.5])):
        at = trl_masks(tensor([ids]), PAD)[2]
        zeros = torch.zeros(1, len(ids))
        close(trl_gae(trl_rewards(tensor([1.0]), zeros, 0.0, at), zeros, 0.5, 1.0)[1][0, :3], expected)


def test_the_critic_is_trained_on_the_response_and_not_on_the_pad_after_it():
    rollout = short_rollout([5, EOS], 2.0, [0.0, 0.0])
    rollout.estimate_advantages(ppo_params(gamma=1.0, lam=1.0), kl_coef=0.0)
    returns = rollout.flat("returns", [0])
    assert returns.tolist() == [2.0, 2.0]
    assert algos.value_loss(torch.zeros(2), torch.zeros(2), returns, None).mean().item() == 2.0  # 2^2 / 2
    # TRL (768, 837) takes in the pad, whose value 1, say, is half wrong: (4 + 4 + 1) / 2 / 3
    values, trl_returns = tensor([[0.0, 0.0, 1.0]]), tensor([[2.0, 2.0, 2.0]])
    mask = trl_masks(tensor([[5, EOS, PAD, PAD]]), PAD)[1][:, :3]
    close(trl_mean((values - trl_returns) ** 2, mask) / 2, 1.5)


@pytest.mark.parametrize(
    ("ids", "pad", "trl_counts"),
    [
        ([5, 6, EOS], EOS, 2),  # pad is EOS: to end has no log-prob in the loss
        ([5, PAD, 6, EOS], PAD, 1),  # a pad token that was sampled
    ],
)
def test_a_mask_is_made_of_lengths_and_not_of_ids(ids, pad, trl_counts):
    rollout = Rollout.empty([[3]], [Response(ids, True)], tensor([1.0]))
    assert rollout.mask.tolist() == [[True] * len(ids)]
    rollout.estimate_advantages(ppo_params(gamma=1.0, lam=1.0), kl_coef=0.0)
    assert rollout.advantages.tolist() == [[1.0] * len(ids)]
    assert trl_masks(tensor([ids]), pad)[0].sum() == trl_counts  # 727


def test_a_response_that_a_stop_string_ended_is_not_cut():
    stopped, cut, ended = Response([5, 6], True), Response([5, 7], False), Response([5, EOS], True)
    responses, scores = [stopped, cut, ended], tensor([1.0, 1.0, 1.0])
    finished = tensor([response.finished for response in responses])
    assert algos.penalise_missing_eos(scores, finished, 2.0).tolist() == [1.0, -1.0, 1.0]
    contains_eos = tensor([EOS in response.ids for response in responses])  # 757-759
    assert torch.where(contains_eos, scores, scores - 2.0).tolist() == [-1.0, -1.0, 1.0]


# ---- Faults: whitening


def test_whitened_rewards_are_of_the_responses_tokens_and_keep_their_zero():
    rollout = short_rollout([5, EOS], 3.0, [0.0, 0.0])
    rollout = Rollout.empty(rollout.prompts[:1], rollout.responses[:1], rollout.scores[:1])
    rollout.estimate_advantages(ppo_params(whiten_rewards=True, gamma=1.0, lam=0.0), kl_coef=0.0)
    close(rollout.advantages, [[0.0, 2.0]])  # 0 and 3 over their deviation, 1.5
    # TRL (783) has the score on a third token, the pad, and its mean of 1 moves to where nothing was earned:
    # 0, 0, 3 less 1 over the root of (1 + 1 + 4) / 2, plus 1
    _, of_critic, at = trl_masks(tensor([[5, EOS, PAD, PAD]]), PAD)
    rewards = trl_rewards(tensor([3.0]), torch.zeros(1, 4), 0.0, at)
    close(trl_whiten(rewards, of_critic, shift_mean=False)[:, :3], [[0.422650, 0.422650, 2.154701]])


def test_whitening_is_by_the_whole_rollout_and_not_by_each_process():
    advantages, full = tensor([[0.0, 2.0], [10.0, 12.0]]), torch.ones(2, 2, dtype=torch.bool)
    # mean 6, variance (36 + 16 + 16 + 36) / 4 = 26
    close(algos.whiten(advantages, full), [[-1.176697, -0.784465], [0.784465, 1.176697]])
    # TRL (797), a row to a process: bad and good responses become the same
    each = [trl_whiten(row, torch.ones(2, dtype=torch.bool)) for row in advantages]
    close(torch.stack(each), [[-0.707107, 0.707107], [-0.707107, 0.707107]])


# ---- Faults: means and steps


@pytest.fixture
def uneven():
    """Responses of one token and of three."""
    rollout = Rollout.empty([[3], [3]], [Response([EOS], True), Response([5, 6, EOS], True)], tensor([0.0, 0.0]))
    rollout.advantages = tensor([[-4.0, 0.0, 0.0], [-1.0, -1.0, -1.0]])
    return rollout


def step(policy, rollout, minibatch):
    """The policy loss of an optimizer step at ratio 1, and its gradient with respect to each token's log-prob."""
    total, gradients = 0.0, torch.zeros(rollout.mask.shape)
    for inputs, rows in zip(
        update_inputs(rollout, minibatch, with_shared_critic(policy).collate, PAD), minibatch, strict=True
    ):
        new = inputs["logprobs"].clone().requires_grad_()
        loss = algos.policy_loss(new, inputs["logprobs"], inputs["advantages"], 0.2).loss.sum() / inputs["num_tokens"]
        loss.backward()
        part = torch.zeros(len(rows), rollout.mask.size(1))
        part[rollout.mask[rows]] = new.grad
        gradients[rows] = part
        total += loss.item()
    return total, gradients


@pytest.mark.parametrize("minibatch", [[[0, 1]], [[0], [1]], [[1], [0]]])
def test_every_token_of_a_minibatch_weighs_the_same_whatever_the_micro_batches(policy, uneven, minibatch):
    loss, gradients = step(policy, uneven, minibatch)
    assert loss == pytest.approx(1.75)  # (4 + 1 + 1 + 1) / 4
    close(gradients, [[1.0, 0.0, 0.0], [0.25, 0.25, 0.25]])


def test_trl_weighs_the_tokens_of_short_micro_batches_more(uneven):
    losses, mask = -uneven.advantages, uneven.mask
    per_micro_batch = [trl_mean(losses[i], mask[i]) for i in range(2)]  # 846, then averaged by accelerate
    assert sum(per_micro_batch).item() / 2 == 2.5  # (4 / 1 + 3 / 3) / 2
    assert trl_mean(losses, mask).item() == 1.75  # and with one micro-batch it is another loss


def test_measures_are_means_over_tokens_and_not_over_padding(uneven):
    mask, log_ratio = uneven.mask, tensor([[2.0, 1.0, 1.0], [1.0, 1.0, 1.0]]).log()
    new, zeros = log_ratio[mask], torch.zeros(4)
    assert algos.policy_loss(new, zeros, zeros, 0.2).ratio.mean().item() == pytest.approx(1.25)  # (2 + 1 + 1 + 1) / 4
    kl = algos.kl_estimate(zeros, new, "k2").mean().item()
    assert kl == pytest.approx(0.060057, abs=1e-6)  # (ln 2)^2 / 2 / 4
    # TRL (825, 857, 868): padding has ratio 1, and counts
    assert log_ratio.exp().mean().item() == pytest.approx(7 / 6)
    assert (log_ratio.square() / 2).mean().item() == pytest.approx(0.040038, abs=1e-6)
    uneven.record("entropy", [0, 1], tensor([2.0, 1.0, 1.0, 1.0]))
    assert uneven.metrics(ppo_params())["entropy"] == 1.25  # (2 + 3) / 4
    # TRL (856, 867): the entropies of what the model says after the padding, say 5, count too
    assert uneven.entropy.masked_fill(~mask, 5.0).mean().item() == 2.5  # (2 + 5 + 5 + 3) / 6


def test_minibatches_are_optimizer_steps_whatever_the_micro_batches():
    for micro_batch, accumulation in ((1, 2), (2, 1)):
        params = ppo_params(
            rollout_batch_size=8, num_minibatches=4, num_ppo_epochs=1, per_device_train_batch_size=micro_batch
        )
        assert params.steps_per_rollout == 4
        assert params.trainer_config()["gradient_accumulation_steps"] == accumulation
    # TRL (460-471): 8 responses in micro-batches of 1 are gradient_accumulation_steps=8, of which num_mini_batches
    # makes 4 minibatches of 2; but accelerate steps at every eighth accumulate() (810): once.
    trl_steps = sum(call % 8 == 0 for call in range(1, 4 * 2 + 1))
    assert trl_steps == 1
