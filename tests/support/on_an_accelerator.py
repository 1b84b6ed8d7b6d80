"""A script on a device of its own, that of accelerator.cpp, on the paths of a GPU: `on_an_accelerator.py FOLDER SCRIPT
[ARGUMENT ...]`, where FOLDER has the compiled library, or gets it."""

import os
import runpy
import sys
from functools import cache
from types import SimpleNamespace

import torch
from torch.utils import cpp_extension

DEVICE = "elsewhere"


def library(folder):
    """The library, compiled where that was not done before: the better part of a minute."""
    source = os.path.join(os.path.dirname(__file__), "accelerator.cpp")
    return cpp_extension.load(DEVICE, [source], build_directory=folder, extra_cflags=["-O1", "-w"])


def begin(folder):
    """Make the device PyTorch's, and what stages compute on."""

    def nothing(*_):
        return None

    torch.utils.rename_privateuse1_backend(DEVICE)
    library(folder).register_hooks()
    of_device = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        set_device=nothing,
        _is_in_bad_fork=lambda: False,
        manual_seed_all=nothing,  # its random numbers are the CPU's
        get_rng_state=lambda *_: torch.random.get_rng_state(),
        set_rng_state=nothing,
        get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
        empty_cache=nothing,
        synchronize=nothing,
    )
    torch._register_device_module(DEVICE, of_device)
    torch.utils.generate_methods_for_privateuse1_backend()
    torch.__future__.set_swap_module_params_on_conversion(True)  # tied weights stay tied, as on a GPU
    os.environ["ACCELERATE_TORCH_DEVICE"] = f"{DEVICE}:0"

    import transformers.training_args as of_trainer

    from rlhf_lib.models import hardware

    of_trainer.is_torch_bf16_gpu_available = lambda: True
    hardware._device = cache(lambda: torch.device(DEVICE, 0))
    hardware._as_on_a_gpu, hardware.computes_bf16 = True, lambda: True


if __name__ == "__main__":
    begin(sys.argv[1])
    sys.argv = sys.argv[2:]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
