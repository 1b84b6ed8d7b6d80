"""Training and sampling on a device that is not the CPU, with its autocast and by the paths of a GPU: nothing computed
with there is left on the CPU, and what is learnt is what a CPU learns."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import on_an_accelerator
import pytest
import torch
from launched import run
from project import of_one_stage
from trained import flat, rows
from trl_process import BUILD, seen

from rlhf_lib.training import trainer as training

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("g++") and shutil.which("ninja")), reason="the device is compiled"),
]

STEPS = {"max_steps": 4, "eval_steps": 2, "save_steps": 4}
ROLLOUTS = {
    **{"rollout_batch_size": 16, "num_minibatches": 2, "per_device_train_batch_size": 4, "total_rollouts": 2},
    **{"eval_rollouts": 1, "save_rollouts": 1, "whiten_advantages": True, "temperature": 0.8, "max_grad_norm": 0.0},
}
METHODS = {
    "shared": {"critic": "shared", "critic_learning_rate": 3e-3, "max_grad_norm": 0.5, "whiten_rewards": True},
    "separate": {"critic": "separate", "scale_rewards": "running", "kl_target": 0.02, "max_approx_kl": 0.02},
    "lora": {"critic": "lora", "lora_r": 4, "ptx_coef": 0.3, "entropy_coef": 0.05},
    "grpo": {
        **{"critic": "none", "advantage_estimator": "grpo", "num_generations": 4, "scale_rewards": "group"},
        **{"loss_aggregation": "sequence", "kl_in": "loss", "kl_estimator": "k3", "gamma": 1.0},
    },
    "restricted": {"top_k": 20, "top_p": 0.9, "min_new_tokens": 2, "stop_strings": ["t"], "critic": "separate"},
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The folder of the compiled device."""
    folder = tmp_path_factory.mktemp("library")
    subprocess.run(
        [sys.executable, "-c", "import on_an_accelerator, sys; on_an_accelerator.library(sys.argv[1])", folder],
        cwd=Path(on_an_accelerator.__file__).parent,
        check=True,
    )
    return folder


@pytest.fixture
def there(library, tmp_path):
    """A function of a script of support/ and its arguments that gives what its process saw on the device."""
    directory = of_one_stage(tmp_path / "there")

    def there(script, *arguments):
        support = Path(on_an_accelerator.__file__).parent
        words = [support / "on_an_accelerator.py", library, support / f"{script}.py", *arguments, directory]
        done = run(directory, *words, RANK="0")
        assert done.returncode == 0, done.stderr[-3000:]
        return torch.load(directory / "0.pt", map_location="cpu", weights_only=False)

    return there


def assert_alike(rows_here, rows_there):
    assert len(rows_here) == len(rows_there) > 0
    for here, there in zip(rows_here, rows_there, strict=True):
        assert there == pytest.approx(here, abs=1e-4, rel=1e-3)


def assert_learnt(start, here, there):
    """Weights moved alike. Sums are in another order, and Adam makes more of that where the gradient is else 0."""
    assert (flat(there) - flat(here)).norm() < 5e-3 * (flat(here) - start).norm()


@pytest.mark.parametrize("adapters", [{}, {"lora_r": 4}], ids=["full", "lora"])
@pytest.mark.parametrize("what", ["sft", "reward", "ranking", "dpo", "kto"])
def test_what_it_trains_is_what_a_cpu_trains(tiny, checkpoints, there, what, adapters):
    changes = {**STEPS, **adapters}
    here = BUILD[what](tiny, checkpoints, changes)
    start = flat(here.model.state_dict())
    training.run(here, checkpoints)
    expected, got = seen(here), there("trl_process", what, json.dumps(changes), tiny.policy, tiny.reward)
    assert_alike(expected["train"], got["train"])
    assert_alike(expected["eval"], got["eval"])
    assert_learnt(start, expected["weights"], got["weights"])


@pytest.mark.parametrize("method", METHODS)
def test_its_rollouts_are_those_of_a_cpu(build, ending, tiny, there, method):
    changes = {**ROLLOUTS, "reward_funcs": [str(tiny.reward)], **METHODS[method]}
    here = build(**changes)
    start = flat(here.model.state_dict())
    here.train()
    got = there("ppo_process", json.dumps(changes), ending, tiny.reward)
    assert_alike(rows(here), got["train"])
    assert_alike(rows(here, "eval_reward"), got["eval"])
    assert_learnt(start, here.model.state_dict(), got["weights"])
    numbers = {"reward": 0, "kl": 0}
    assert [one | numbers for one in got["completions"]] == [one | numbers for one in here.ppo_state.completions]


@pytest.mark.parametrize("method", METHODS)
def test_under_autocast_a_rollout_is_scored_as_it_is_learnt_from(ending, tiny, there, method):
    changes = {**ROLLOUTS, "reward_funcs": [str(tiny.reward)], **METHODS[method], "precision": "bf16"}
    got = there("ppo_process", json.dumps(changes), ending, tiny.reward)
    assert got["train"][0]["kl"] == 0.0 if "lora_r" not in changes else abs(got["train"][0]["kl"]) < 1e-3
