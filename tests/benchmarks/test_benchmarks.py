"""The PPO benchmark: its arithmetic, its cases, its workload, and our worker on a toy model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from benchmark_workers import reports

from benchmarks import command, results
from benchmarks.ppo import ours as our_ppo
from benchmarks.ppo import peer as peer_ppo
from benchmarks.ppo.cases import CASES, LIKE_FOR_LIKE
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.ppo.params import PPOParams

FIELDS = {field.name for field in dataclasses.fields(PPOParams)}


def update(seconds, peak=100.0, tokens=60, sampling=2.0):
    phases = {"sampling": sampling, "other": seconds - sampling}
    return {
        "cpu_seconds": seconds,
        "wall_seconds": seconds + 1,
        "response_tokens": tokens,
        "phases": phases,
        "peak_mb": peak,
    }


# ---- Statistics


def test_ratios_are_of_pairs_not_of_medians():
    peer = [update(seconds, peak) for seconds, peak in ((6.0, 100.0), (9.0, 120.0), (4.0, 120.0))]
    ours = [update(seconds, peak) for seconds, peak in ((3.0, 60.0), (3.0, 60.0), (4.0, 90.0))]
    assert results.compare(peer, ours) == {
        "pairs": 3,
        "ratio": 2.0,
        "ratio_low": 1.0,
        "ratio_high": 3.0,
        "memory_ratio": 0.75,
    }


def test_a_side_without_its_partner_is_an_error():
    with pytest.raises(ValueError):
        results.compare([update(3.0)], [])


def test_a_side_is_medians_over_its_updates_and_its_last_peak():
    updates = [update(5.0, 90.0, 60, 2.0), update(7.0, 95.0, 80, 4.0), update(30.0, 95.0, 64, 2.0)]
    side = results.side({"settings": {"seed": 0}}, updates)
    assert side == {
        "settings": {"seed": 0},
        "seconds": 7.0,
        "seconds_each": [5.0, 7.0, 30.0],
        "wall_seconds": 8.0,
        "response_tokens": 64,
        "rollout_tokens_per_second": 30.0,
        "phase_seconds": {"sampling": 2.0, "other": 3.0},
        "peak_mb": 95.0,
    }


def test_what_part_of_the_peak_is_reached_is_a_median_over_updates_each_with_its_own_peak():
    peer = [update(seconds) for seconds in (30.0, 20.0, 40.0)]
    ours = [{**update(10.0), "peak_gflops": peak} for peak in (100.0, 50.0, 80.0)]
    measured = results.arithmetic(400.0, peer, ours)
    assert measured == {"gflop": 400.0, "peak_gflops": 80.0, "peak_share": 0.5, "ratio_bound": 7.5}


def test_products_of_the_last_update_are_counted_and_those_of_its_backward_pass_too(monkeypatch):
    import torch

    from benchmarks import arithmetic

    monkeypatch.setattr(arithmetic, "SIDE", 64)
    monkeypatch.setattr(arithmetic, "SECONDS", 0.0)
    measured = arithmetic.Arithmetic("bf16")
    measured.begin(is_last=True)
    weight = torch.ones(30, 20, requires_grad=True)
    (torch.ones(10, 30) @ weight).sum().backward()
    assert measured.measured()["gflop"] == 2 * (2 * 10 * 30 * 20) / 1e9
    measured.begin(is_last=False)
    assert [*measured.measured()] == ["peak_gflops"]


def test_response_tokens_end_with_the_first_eos():
    assert peer_ppo.response_tokens([[5, 6, 7], [5, 1, 0], [1, 1, 1]], eos_id=1) == 3 + 2 + 1


# ---- The results file

MACHINE = {"cpu": "a", "torch": "1"}


def test_merge_replaces_the_cases_that_ran_and_keeps_the_others():
    old = {"machine": MACHINE, "cases": {"fp32": 1, "bf16": 2}}
    assert results.merge(old, MACHINE, {"bf16": 3}) == {"machine": MACHINE, "cases": {"fp32": 1, "bf16": 3}}
    assert results.merge({}, MACHINE, {"bf16": 3}) == {"machine": MACHINE, "cases": {"bf16": 3}}


def test_kept_cases_must_come_from_the_same_machine():
    old = {"machine": MACHINE, "cases": {"fp32": 1, "bf16": 2}}
    other = {**MACHINE, "torch": "2"}
    results.check_mergeable(old, MACHINE, ["bf16"])
    results.check_mergeable(old, other, ["bf16", "fp32"])
    results.check_mergeable({}, other, ["bf16"])
    with pytest.raises(ParamsError, match="hold fp32 with another torch"):
        results.check_mergeable(old, other, ["bf16"])


def test_the_processor_is_named_as_the_system_names_it(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t: a b\n")
    assert results.cpu_model(tmp_path / "cpuinfo") == "Some CPU @ 2 GHz"
    assert results.cpu_model(tmp_path / "missing")


@pytest.mark.parametrize(
    "line, expected",
    [
        ("flags\t\t: fpu avx2", False),
        ("flags\t\t: fpu avx512_bf16", True),
        ("flags\t\t: amx_bf16", True),
        ("Features\t: asimd bf16", True),
    ],
)
def test_bf16_instructions_are_read_from_the_processor_flags(tmp_path, line, expected):
    (tmp_path / "cpuinfo").write_text(line + "\n")
    assert results.has_bf16(tmp_path / "cpuinfo") is expected
    assert results.has_bf16(tmp_path / "missing") is False


def test_cases_in_bf16_are_left_out_where_it_is_emulated():
    assert command.suitable_cases(CASES, bf16=True) == list(CASES)
    left_out = set(CASES) - set(command.suitable_cases(CASES, bf16=False))
    assert left_out == {"bf16", "early_eos_bf16", "gpt2_bf16", "gpt2_lora"}


def test_table_has_a_row_a_case():
    case = {
        **results.compare([update(6.0, 200.0)], [update(3.0, 50.0)]),
        **results.arithmetic(120.0, [update(6.0)], [{**update(3.0), "peak_gflops": 80.0}]),
        "peer": results.side({}, [update(6.0, 200.0)]),
        "ours": results.side({}, [update(3.0, 50.0)]),
    }
    lines = results.table({"cases": {"fp32": case}}).splitlines()
    assert lines[2] == "| fp32 | 6 | 3 | 2.00 (2.00–2.00) | 4.00 | 0.50 | 30 | 30 | 200 | 50 | 0.25 |"
    assert len({line.count("|") for line in lines}) == 1


# ---- Cases


@pytest.mark.parametrize("name", CASES)
def test_settings_are_params_of_the_ppo_section(name):
    case = CASES[name]
    assert {*case.ours, *case.work(updates=2)} <= FIELDS
    for shape in (case, case.quick()):
        params = our_ppo.ppo_params({**shape.ours, **shape.work(updates=2)})
        assert params.steps_per_rollout == shape.epochs * shape.minibatches
        assert params.minibatch_size % params.per_device_train_batch_size == 0


def test_an_unknown_setting_is_refused():
    with pytest.raises(ParamsError, match="unknown key"):
        our_ppo.ppo_params({"no_such_setting": 1})


@pytest.mark.parametrize("name", CASES)
def test_both_sides_do_the_same_amount_of_work(name):
    case = CASES[name]
    ours, peer = case.work(updates=3), peer_ppo.settings(case, updates=3)
    assert peer["total_episodes"] == ours["total_rollouts"] * ours["rollout_batch_size"]
    assert peer["num_mini_batches"] == ours["num_minibatches"]
    assert peer["num_ppo_epochs"] == ours["num_ppo_epochs"]
    assert peer["response_length"] == ours["response_length"]


@pytest.mark.parametrize("name", [name for name in CASES if name != "default" and "lora" not in name])
def test_cases_that_claim_the_same_algorithm_run_it(name):
    case, peer = CASES[name], peer_ppo.settings(CASES[name], updates=1)
    assert {key: case.ours[key] for key in LIKE_FOR_LIKE} == LIKE_FOR_LIKE
    assert (case.ours["critic"], case.ours["lora_r"]) == ("separate", None)
    assert (case.precision == "bf16") is case.peer_bf16
    shared = LIKE_FOR_LIKE.keys() & peer.keys()
    assert len(shared) > 10
    assert {key: peer[key] for key in shared} == {key: case.ours[key] for key in shared}


# ---- Workload and worker


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def models(cache, tmp_path_factory) -> Path:
    from benchmarks.ppo import workload

    folder = tmp_path_factory.mktemp("models")
    workload.write(CASES["early_eos"].quick(), folder, cache)
    return folder


@pytest.mark.slow
def test_templated_prompts_are_as_long_as_asked(cache, models):
    from benchmarks.ppo import workload
    from rlhf_lib.models.chat import prompt_ids

    tokenizer = workload.fresh_tokenizer(512, cache)
    tokenizer.chat_template = workload.AutoTokenizer.from_pretrained(models / workload.POLICY).chat_template
    drawn = workload.prompts(tokenizer, 40, (16, 20), seed=3)
    assert drawn == workload.prompts(tokenizer, 40, (16, 20), seed=3)
    assert {len(prompt_ids(tokenizer, prompt)) for prompt in drawn} == set(range(16, 21))


def test_eos_comes_as_often_as_the_case_says(models):
    import torch

    from benchmarks.ppo import workload
    from rlhf_lib.models.loading import load_policy

    case = CASES["early_eos"]
    policy = load_policy(models / workload.POLICY)
    ids = torch.randint(5, 512, (32, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        probabilities = (policy(ids).logits / case.ours["temperature"]).softmax(dim=-1)
    assert probabilities[..., policy.config.eos_token_id].mean().item() == pytest.approx(case.eos_probability, rel=0.2)


@pytest.mark.slow
def test_our_worker_reports_a_warm_up_and_an_update_that_is_counted(models):
    start, updates = reports("benchmarks.ppo.ours", "early_eos", models)
    assert start["settings"]["critic"] == "separate"
    assert set(start["versions"]) == {"torch", "transformers", "accelerate"}
    assert ["gflop" in one for one in updates] == [False, True]
    for one in updates:
        assert 8 <= one["response_tokens"] <= 64
        assert one["peak_mb"] > 0 and one["peak_gflops"] > 0
        assert sum(one["phases"].values()) == pytest.approx(one["cpu_seconds"])
        assert all(seconds > 0 for seconds in one["phases"].values())
    assert not (models / "checkpoints").exists() or not any((models / "checkpoints").iterdir())
