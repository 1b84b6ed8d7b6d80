"""PPO in two processes on a CPU, with the whole models in each or shards of them, against one process with the same
rollouts and minibatches."""

import json

import pytest
import torch
from launched import launch
from ppo_steps import gradients
from project import of_one_stage
from trained import column, flat, rows, same

from rlhf_lib.models import loading as models

pytestmark = pytest.mark.slow

# An optimizer step has four micro-batches of two rows: four in one process, two in each of two.
CHANGES = {
    "temperature": 0.8,
    "rollout_batch_size": 16,
    "num_minibatches": 2,
    "per_device_train_batch_size": 2,
    "total_rollouts": 2,
    "eval_rollouts": 1,
    "save_rollouts": 1,
    "max_grad_norm": 0.0,
    "whiten_rewards": True,
    "whiten_advantages": True,
}
# Sums over another split of the rows are in another order: in fp32 they agree to about 1e-7 a term. Adam makes more of
# such errors where the gradient is else 0 (the keys' biases): weights are compared by the norm of what they moved.
GRADIENT, METRIC, MOVE = 1e-5, 1e-4, 1e-3


@pytest.fixture
def in_two(tiny, ending, tmp_path):
    """A function of params that gives what each of two processes saw, in a project of their own."""
    directory = of_one_stage(tmp_path / "two")

    def in_two(shards, processes=2, **changes):
        changes = {**CHANGES, "reward_funcs": [str(tiny.reward)], **changes}
        how = {"config": "fsdp2" if shards else "cpu-2", "shards": shards, "processes": processes}
        done = launch(directory, "ppo_process", json.dumps(changes), ending, tiny.reward, directory, **how)
        assert done.returncode == 0, done.stderr[-3000:]
        files = [directory / f"{rank}.pt" for rank in range(processes)]
        return [torch.load(file, weights_only=False) for file in files if file.is_file()]

    in_two.directory = directory
    return in_two


def assert_like(rows_of_one, rows_of_two):
    assert len(rows_of_one) == len(rows_of_two) > 0
    for one, two in zip(rows_of_one, rows_of_two, strict=True):
        assert one.keys() == two.keys()
        assert two == pytest.approx(one, abs=METRIC, rel=METRIC)


SHARDS = pytest.mark.parametrize("shards", [False, True], ids=["whole", "sharded"])


@SHARDS
@pytest.mark.parametrize(
    "changes",
    [
        {"critic": "shared", "critic_learning_rate": 3e-3, "max_grad_norm": 0.5},
        {"critic": "separate", "num_generations": 2, "scale_rewards": "running", "kl_target": 0.02, "kl_horizon": 40.0},
        {"critic": "lora", "lora_r": 4, "ptx_coef": 0.3, "entropy_coef": 0.05, "max_approx_kl": 0.02},
        {
            **{"critic": "none", "advantage_estimator": "grpo", "num_generations": 4, "scale_rewards": "group"},
            **{"loss_aggregation": "sequence", "kl_in": "loss", "kl_estimator": "k3", "gamma": 1.0},
        },
    ],
    ids=["shared", "separate", "lora", "none"],
)
def test_two_processes_do_what_one_does(build, in_two, shards, changes):
    alone = build(**{**CHANGES, **changes})
    start = flat(alone.model.state_dict())
    expected = gradients(alone)
    first, second = in_two(shards, **changes)
    assert_held(first, second, shards)
    assert first["processes"] == second["processes"] == 2 and alone.args.gradient_accumulation_steps == 4
    assert len(first["gradients"]) == len(second["gradients"]) == len(expected)
    for one, two, other in zip(expected, first["gradients"], second["gradients"], strict=True):
        assert two.equal(other)
        assert (two - one).norm() < GRADIENT * one.norm()
    assert_like(rows(alone), first["train"])
    assert_like(rows(alone, "eval_reward"), first["eval"])
    assert same(first["weights"], second["weights"])
    one, two = flat(alone.model.state_dict()), flat(first["weights"])
    assert (two - one).norm() < MOVE * (one - start).norm()
    for one, two in zip(alone.ppo_state.completions, first["completions"], strict=True):
        assert {**two, "reward": 0, "kl": 0} == {**one, "reward": 0, "kl": 0}
    assert first["completions"] == second["completions"]
    assert column(alone, "kl")[0] == 0.0 == first["train"][0]["kl"]
    exported = models.load_policy(in_two.directory / "model").state_dict()
    if "lora_r" not in changes:  # else save() has held the merged model to the trained one
        assert all(weight.equal(first["weights"][f"policy.{name}"]) for name, weight in exported.items())


def assert_held(first, second, shards):
    """All weights of policy, critic and reference are in each process, or some in the one and the rest in the other."""
    (in_first, count), (in_second, _) = first["held"], second["held"]
    assert (in_first, in_second) == (count, count) if not shards else in_first + in_second == count
    assert not shards or in_second > 0.45 * count


@pytest.mark.parametrize("changes", [{"critic": "separate"}, {"critic": "lora", "lora_r": 4}], ids=["separate", "lora"])
def test_sampling_layer_by_layer_is_sampling_from_the_whole_policy(in_two, changes):
    """Three prompts to evaluate on, and responses of different lengths: not all processes call the policy equally
    often."""
    changes = {**changes, "total_rollouts": 1, "per_device_train_batch_size": 1}
    whole, by_layer = (in_two(True, gather_for_generation=gathers, **changes) for gathers in (True, False))
    for one, other in zip(whole, by_layer, strict=True):
        assert one["train"] == other["train"] and one["eval"] == other["eval"]
        assert same(one["weights"], other["weights"])


def test_shards_round_nothing_more_in_bf16(in_two):
    """Rewards, values, log-probs and sums of gradients stay in fp32."""
    changes = {"critic": "separate", "total_rollouts": 1, "precision": "bf16"}
    whole, sharded = in_two(False, **changes)[0], in_two(True, **changes)[0]
    assert sharded["train"][0]["kl"] == 0.0
    assert_like(whole["train"], sharded["train"])
    assert whole["gradients"][0].dtype == sharded["gradients"][0].dtype == torch.float32
    for one, two in zip(whole["gradients"], sharded["gradients"], strict=True):
        assert (two - one).norm() < 1e-3 * one.norm()


def test_micro_batches_that_do_not_share_out_are_told_in_one_line(tiny, ending, in_two):
    changes = {**CHANGES, "per_device_train_batch_size": 8, "reward_funcs": [str(tiny.reward)]}
    done = launch(in_two.directory, "ppo_process", json.dumps(changes), ending, tiny.reward, in_two.directory)
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if "per_device_train_batch_size" in line]
    assert told and all("must divide a minibatch of 8 responses" in line for line in told)
    assert "ValueError" not in "".join(told)


@SHARDS
def test_a_killed_run_of_two_processes_goes_on_to_the_same_weights(in_two, shards):
    whole = in_two(shards)
    for file in (in_two.directory / "checkpoints", *in_two.directory.glob("*.pt")):
        file.rename(in_two.directory / f"{file.name}-whole")
    assert in_two(shards, kill_at=6) == []
    assert list(in_two.directory.glob("checkpoints/ppo/*/checkpoint-4/trainer_state.json"))
    resumed = in_two(shards)
    for one, other in zip(whole, resumed, strict=True):
        assert len(other["gradients"]) == 4 and one["train"] == other["train"] and one["eval"] == other["eval"]
        assert same(one["weights"], other["weights"])


@pytest.mark.parametrize(("shards", "others"), [(False, 1), (True, 4)], ids=["whole", "sharded"])
def test_another_number_of_processes_goes_on_from_a_checkpoint(in_two, shards, others):
    whole = in_two(shards)[0]
    for file in (in_two.directory / "checkpoints", *in_two.directory.glob("*.pt")):
        file.rename(in_two.directory / f"{file.name}-whole")
    assert in_two(shards, kill_at=6) == []
    resumed = in_two(shards, processes=others)[0]
    assert len(resumed["gradients"]) == 4 and resumed["processes"] == others
    assert_like(whole["train"], resumed["train"])
    for name, weight in whole["weights"].items():
        torch.testing.assert_close(resumed["weights"][name], weight, atol=1e-4, rtol=0)


@SHARDS
def test_two_processes_keep_the_best_weights(in_two, shards):
    first, second = in_two(shards, load_best_model_at_end=True, learning_rate=3e-2, total_rollouts=3)
    assert same(first["weights"], second["weights"])
