"""How many responses PPO samples, scores and measures at once, and that this changes no response."""

import pytest
import torch
from shipped_params import check, check_fault

from rlhf_lib.ppo.params import PPOParams


def rows_read(module):
    """The rows of each forward pass of a module from now on."""
    rows = []

    def note(module, args, kwargs):
        rows.append(kwargs["input_ids"].size(0))

    module.register_forward_pre_hook(note, with_kwargs=True)
    return rows


def test_responses_sampled_in_pieces_are_those_of_a_whole_rollout(build):
    whole, pieces = build(), build(generation_batch_size=3)
    rows = rows_read(pieces.model.policy), rows_read(whole.model.policy)
    rollouts = [trainer.sample(1) for trainer in (whole, pieces)]
    assert rollouts[0].responses == rollouts[1].responses
    distinct = set(map(tuple, rollouts[0].prompts))
    assert max(rows[0]) == 3 and max(rows[1]) == len(distinct) == 7  # one of the 8 prompts is another's, and read once


def test_reward_models_and_evaluations_read_so_many_responses_at_once(build):
    trainer, other = build(local_rollout_forward_batch_size=3), build(local_rollout_forward_batch_size=1)
    (reward,) = trainer.sampler.reward.functions.values()
    rows = rows_read(reward.model)
    rollouts = [of.sample(0) for of in (trainer, other)]
    assert rows == [3, 3, 2]
    assert torch.allclose(rollouts[0].scores, rollouts[1].scores, atol=1e-5)
    measured = [of.evaluate() for of in (trainer, other)]
    assert measured[0] == pytest.approx(measured[1], abs=1e-5)


def test_by_default_a_rollout_is_sampled_at_once_and_scored_in_the_batches_of_the_updates():
    params: PPOParams = check("ppo", {})
    assert params.sampled_at_once == params.rollout_batch_size == 64
    assert params.forward_batch_size == params.per_device_train_batch_size == 32
    params = check("ppo", {"generation_batch_size": 48, "local_rollout_forward_batch_size": 7})
    assert (params.sampled_at_once, params.forward_batch_size) == (48, 7)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        *((section, "per_device_eval_batch_size") for section in ("sft", "reward", "judge", "dpo", "evaluate")),
        ("reference", "precompute_ref_batch_size"),
        ("ppo", "generation_batch_size"),
        ("ppo", "local_rollout_forward_batch_size"),
    ],
)
def test_no_forward_pass_is_of_no_rows(section, key):
    assert f"{section}.{key}: must be at least 1" in check_fault(section, {key: 0})
