"""SFT, reward model and DPO in two processes on a CPU, with the whole model in each or shards of it, against one
process with the same batches; and rows that are shared out over processes, and come back in order."""

import json

import pytest
import torch
from launched import launch
from project import of_one_stage
from trained import same
from trl_process import BUILD, seen
from trl_trainers import CHOSEN, REJECTED

from rlhf_lib.training import trainer as training

pytestmark = pytest.mark.slow

# Two passes over eight rows, four to a step: micro-batches of two, both in one process or one in each of two.
COMMON = {
    "max_steps": 4,
    "eval_steps": 2,
    "save_steps": 4,
    "train_sampling_strategy": "group_by_length",
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
}
# TRL averages its other metrics over micro-batches, or takes the least and the greatest of those of all processes.
COMPARED = {"loss", "grad_norm", "learning_rate", "accuracy", "rewards/margins", "eval_loss", "eval_accuracy"}
# Sums in another order. Adam makes more of such differences where the gradient is else 0 (the keys' biases): weights
# are compared by the norm of what they moved.
LOSS, MOVE = 1e-5, 1e-3


@pytest.fixture
def in_two(tiny, tmp_path):
    directory = of_one_stage(tmp_path / "two")

    def in_two(what, changes, shards=False):
        arguments = (what, json.dumps(changes), tiny.policy, tiny.reward, directory)
        done = launch(directory, "trl_process", *arguments, config="fsdp2" if shards else "cpu-2", shards=shards)
        assert done.returncode == 0, done.stderr[-3000:]
        return [torch.load(directory / f"{rank}.pt", weights_only=False) for rank in (0, 1)]

    return in_two


@pytest.mark.parametrize("shards", [False, True], ids=["whole", "sharded"])
@pytest.mark.parametrize("adapters", [{}, {"lora_r": 4}], ids=["full", "lora"])
@pytest.mark.parametrize("what", ["sft", "reward", "ranking", "dpo"])
def test_two_processes_learn_what_one_does(tiny, checkpoints, in_two, what, adapters, shards):
    changes = {**COMMON, **adapters}
    alone = BUILD[what](tiny, checkpoints, {**changes, "gradient_accumulation_steps": 2})
    start = {name: tensor.clone() for name, tensor in alone.model.state_dict().items()}
    training.run(alone, checkpoints)
    first, second = in_two(what, changes, shards)
    assert all(saw["is_sharded"] is shards for saw in (first, second))
    expected = seen(alone)
    for curve in ("train", "eval"):
        assert len(first[curve]) == len(expected[curve]) > 1
        for one, two in zip(expected[curve], first[curve], strict=True):
            assert one.keys() == two.keys()
            for name in one.keys() & COMPARED:
                assert two[name] == pytest.approx(one[name], abs=LOSS, rel=1e-4), (curve, name)
    assert same(first["weights"], second["weights"])
    one, two = (torch.cat([saw["weights"][name].flatten() for name in start]) for saw in (expected, first))
    moved = (one - torch.cat([weight.flatten() for weight in start.values()])).norm()
    assert (two - one).norm() < MOVE * moved and moved > 1e-2


@pytest.mark.parametrize("shards", [False, True], ids=["whole", "sharded"])
@pytest.mark.parametrize("adapters", [{}, {"lora_r": 4}], ids=["full", "lora"])
def test_two_processes_end_with_the_best_model(tiny, checkpoints, in_two, adapters, shards):
    changes = {**COMMON, **adapters, "learning_rate": 3e-3}
    first, second = in_two("overfitting", changes, shards)
    assert same(first["weights"], second["weights"])
    losses = [row["eval_loss"] for row in first["eval"]]
    assert losses[0] < losses[1] and [row["step"] for row in first["eval"]] == [2, 4]
    # two steps of the same schedule, and no more
    alone = BUILD["overfitting"](tiny, checkpoints, {**changes, "gradient_accumulation_steps": 2})
    start = {name: tensor.clone() for name, tensor in alone.model.state_dict().items()}
    training.run(alone, checkpoints)
    assert alone.state.best_global_step == 2
    expected = seen(alone)["weights"]
    one, two = (torch.cat([state[name].flatten() for name in start]) for state in (expected, first["weights"]))
    moved = (one - torch.cat([weight.flatten() for weight in start.values()])).norm()
    assert (two - one).norm() < MOVE * moved and moved > 1e-3


def test_each_process_draws_random_numbers_of_its_own(in_two):
    first, second = in_two("draws", {})
    assert not first.equal(second)


@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_rewards_come_back_to_the_rows_that_they_are_of(in_two, count):
    first, second = in_two("rows", count)
    assert first["names"] == second["names"] == list(range(count))
    assert first["rewards"] == second["rewards"] == pytest.approx(first["alone"], abs=1e-5)
    assert len(set(first["rewards"])) == len(first["rewards"])


def test_the_pairs_have_answers_of_different_lengths():
    assert len({len(a) + len(b) for a, b in zip(CHOSEN, REJECTED, strict=True)}) > 3
