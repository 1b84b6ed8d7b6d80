"""The benchmark of a GPU: its peaks, what it keeps, and what it does where a generator of others fails."""

import argparse
import json
import sys
from types import SimpleNamespace

import pytest

from benchmarks import generators, gpu


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L40", None),
        ("NVIDIA GeForce RTX 4090", 165.0),
        ("AMD EPYC", None),
    ],
)
def test_the_peak_is_that_of_the_very_gpu(name, peak):
    assert gpu.known_peak(name) == peak


def test_results_of_other_stages_stay_and_those_of_another_machine_go(tmp_path):
    output = tmp_path / "gpu.json"

    def kept(machine, what, *names):
        gpu.keep(output, {"device": machine}, what, {name: {"seconds": 1.0} for name in names})
        found = json.loads(output.read_text())
        return found["machine"]["device"], {case: sorted(rows) for case, rows in found["cases"].items()}

    kept("H100", "rollouts", "ours")
    kept("H100", "train", "sft")
    assert kept("H100", "train", "dpo") == ("H100", {"rollouts": ["ours"], "train": ["dpo", "sft"]})
    assert kept("RTX 4090", "train", "ppo") == ("RTX 4090", {"train": ["ppo"]})


@pytest.mark.slow
def test_a_generator_that_fails_is_left_out_and_the_others_numbers_are_there(tmp_path, capsys, monkeypatch):
    class NoRoom:
        def __init__(self, **options):
            raise ValueError("Free memory on device is less than desired")

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=NoRoom, SamplingParams=dict))
    monkeypatch.setattr(generators, "CACHE", tmp_path)
    found = dict(generators.sample(argparse.Namespace(rollout_batch=8, quick=True), tmp_path))
    assert {"ours"} <= found.keys() <= {"ours", "continuous_batching"} and found["ours"]["tokens_per_second"] > 0
    assert "vllm: left out: Free memory on device is less than desired (ValueError)" in capsys.readouterr().out
