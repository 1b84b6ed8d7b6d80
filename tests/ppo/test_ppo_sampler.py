"""The order of PPO's prompts, and the policy that answers them."""

import pytest
from ppo_trainers import TRAIN_ROWS
from trained import same, weights
from transformers import TrainerCallback

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models.chat import prompt_ids


class Snapshots(TrainerCallback):
    """The weights after each optimizer step, by its number."""

    def __init__(self):
        self.at = {}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.at[state.global_step] = weights(model.policy)


def test_each_rollout_is_sampled_from_the_policy_after_the_last_update(build):
    snapshots, sampled = Snapshots(), []

    def reward(prompts, **columns):
        if len(prompts) == 8:  # not an evaluation
            sampled.append((trainer.state.global_step, weights(trainer.model.policy)))
        return [0.5] * len(prompts)

    trainer = build(total_rollouts=3, functions={"reward": reward})
    snapshots.at[0] = weights(trainer.model.policy)
    trainer.add_callback(snapshots)
    trainer.train()
    assert [step for step, _ in sampled] == [0, 4, 8]
    assert all(same(policy, snapshots.at[step]) for step, policy in sampled)
    assert not same(snapshots.at[3], snapshots.at[4])


def test_each_prompt_is_answered_num_generations_times_in_a_row(build):
    trainer = build(num_generations=4, rollout_batch_size=16)
    first, second = trainer.sample(0), trainer.sample(1)
    for rollout in (first, second):
        blocks = [rollout.prompts[start : start + 4] for start in range(0, 16, 4)]
        assert all(block == block[:1] * 4 for block in blocks)
        assert len({str(block[0]) for block in blocks}) == 4
        for start in range(0, 16, 4):
            assert len({tuple(response.ids) for response in rollout.responses[start : start + 4]}) > 1
    walked = {str(prompt) for rollout in (first, second) for prompt in rollout.prompts}
    assert len(walked) == 8  # of 9 prompts, none came back before its time


def test_every_pass_over_the_prompts_holds_each_once(build):
    trainer, other = build(), build(seed=1)
    ids = [prompt_ids(trainer.processing_class, row["prompt"]) for row in TRAIN_ROWS]
    walked = [ids.index(prompt) for index in range(9) for prompt in trainer.sample(index).prompts]
    passes = [walked[start : start + 9] for start in range(0, 72, 9)]
    assert all(sorted(one) == list(range(9)) for one in passes)
    assert len({tuple(one) for one in passes}) > 1
    assert trainer.sample(4).prompts == [ids[i] for i in walked[32:40]]
    assert other.sample(0).prompts != trainer.sample(0).prompts


def test_a_rollout_may_be_larger_than_the_prompts(build):
    trainer = build(rollout_batch_size=24)
    rollout = trainer.sample(0)
    ids = [prompt_ids(trainer.processing_class, row["prompt"]) for row in TRAIN_ROWS]
    indices = [ids.index(prompt) for prompt in rollout.prompts]
    assert len(indices) == 24 and sorted(indices[:18]) == sorted(2 * list(range(9)))


def test_responses_without_room_for_a_prompt_are_refused_in_one_line(build):
    with pytest.raises(ParamsError, match=r"ppo\.response_length: 60 new tokens") as error:
        build(response_length=60)
    assert "\n" not in str(error.value)
