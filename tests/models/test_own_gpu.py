"""Which GPU is a process's own, told of a machine that has so many."""

import pytest
import torch

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import hardware


@pytest.fixture
def two_gpus(monkeypatch, compute):
    """What PyTorch says of a machine with two GPUs, to a launch of three processes."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    return compute


def test_each_process_has_the_gpu_of_its_rank(two_gpus, monkeypatch):
    for rank in (0, 1):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        two_gpus(device="cuda", precision="fp32")
        assert hardware.device() == torch.device("cuda", rank)


def test_more_processes_than_gpus_are_told_in_one_line(two_gpus, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ParamsError) as error:
        two_gpus(device="auto", precision="fp32")
    assert str(error.value) == (
        "params.yaml: launch: 3 processes, of which each needs a GPU, and PyTorch finds 2 here; lower num_processes, "
        "or set compute.device to cpu"
    )
    two_gpus(device="cpu", precision="fp32")  # the way out
    assert hardware.device() == torch.device("cpu")
