"""The benchmark of PPO without a critic: its cases, and that both sides are asked for the same."""

import pytest
from benchmark_workers import reports

from benchmarks.grpo.cases import CASES, COPIES
from benchmarks.grpo.peer import settings, trainer_name
from benchmarks.ppo import ours as our_ppo
from benchmarks.ppo import workload


@pytest.mark.parametrize("name", CASES)
def test_both_sides_do_the_same_work(name):
    for case in (CASES[name], CASES[name].quick()):
        params = our_ppo.ppo_params({**case.ours, **case.work(updates=3)})
        peer = settings(name, case, updates=3)
        rows = peer["per_device_train_batch_size"]
        assert params.critic == "none" and params.advantage_estimator == trainer_name(name).lower()
        assert rows == params.per_device_train_batch_size
        assert rows * peer["steps_per_generation"] == params.rollout_batch_size == case.batch
        assert rows * peer["gradient_accumulation_steps"] == params.minibatch_size
        assert peer["num_iterations"] == params.num_ppo_epochs
        assert peer["max_steps"] == params.total_rollouts * params.steps_per_rollout
        assert peer["num_generations"] == params.num_generations == COPIES
        assert (peer["beta"], peer["epsilon"]) == (params.kl_coef, params.cliprange)
        assert (peer["max_completion_length"], peer["temperature"]) == (params.response_length, params.temperature)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["ours", "peer"])
@pytest.mark.parametrize("name", ["grpo", "rloo_early_eos"])
def test_a_worker_reports_a_warm_up_and_an_update(tmp_path, side, name):
    case = CASES[name].quick()
    workload.write(case, tmp_path, tmp_path, case.batch // COPIES)
    start, updates = reports(f"benchmarks.grpo.{side}", name, tmp_path)
    assert start["settings"]["num_generations"] == COPIES and len(updates) == 2
    for one in updates:
        assert case.batch <= one["response_tokens"] <= case.batch * case.response_length
        assert sum(one["phases"].values()) == pytest.approx(one["cpu_seconds"])
        assert all(seconds > 0 for seconds in one["phases"].values())
