"""Device, precision and attention: one choice for everything that a process computes.

A stage calls `use` with the `compute` section of params.yaml before it loads a model; all else asks here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, Literal

import torch

from rlhf_lib.common.launching import is_main
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import machines
from rlhf_lib.models.params import AUTO, ComputeParams

Precision = Literal["fp32", "bf16", "fp16"]

# Below this hidden size, one core computes a layer before two have shared it out (docs/performance.md).
NARROW = 128

_chosen = AUTO
_as_on_a_gpu = False
_on_cpu = False
_widest = 0  # hidden size of this process's models


def use(params: ComputeParams) -> None:
    """Make `params` this process's choice; a `ParamsError` for what this machine cannot do."""
    global _chosen, _widest
    _chosen, _widest = params, 0
    _device.cache_clear()
    kind = device().type
    if params.precision == "fp16" and kind != "cuda":
        raise ParamsError(f"params.yaml: compute.precision: fp16 needs a CUDA GPU, and this is {kind}; set it to auto")
    if params.attn_implementation.startswith("flash_attention") and kind != "cuda":
        raise ParamsError(
            f"params.yaml: compute.attn_implementation: {params.attn_implementation} needs a CUDA GPU, and this is "
            f"{kind}; set it to auto"
        )
    if params.attn_implementation.startswith("flash_attention") and precision() == "fp32":
        raise ParamsError(
            f"params.yaml: compute.attn_implementation: {params.attn_implementation} has no fp32, in which products "
            "are here; set it to auto, or compute.precision to bf16 or fp16"
        )
    if params.precision == "bf16":
        _tell_slow_bf16("compute.precision: bf16")
    if params.frozen_dtype == "bf16" and precision() != "bf16":
        raise ParamsError(
            f"params.yaml: compute.frozen_dtype: bf16 goes with products in bf16, which here are in {precision()}; set "
            "compute.precision to bf16, or compute.frozen_dtype to auto"
        )
    multiply_with_onednn()
    multiply_in_tf32(params.tf32)
    attend_without_cudnn()
    machines.join(kind == "cpu")
    machines.watch()


def _tell_slow_bf16(param: str) -> None:
    if not computes_bf16() and is_main():
        kind = device().type
        print(f"{param}, but this {kind} has no bf16 arithmetic: it will be many times slower than fp32")


def device() -> torch.device:
    """The device that `compute.device` names; auto: CUDA, else Apple's MPS, else the CPU.

    In several processes on GPUs each has the one of its local rank. In `on_cpu` it is the CPU.
    """
    return torch.device("cpu") if _on_cpu else _device()


@contextmanager
def on_cpu() -> Iterator[None]:
    """A context, or a decorator, in which models are loaded on the CPU, whatever computes beside it."""
    global _on_cpu
    before, _on_cpu = _on_cpu, True
    try:
        yield
    finally:
        _on_cpu = before


@cache
def _device() -> torch.device:
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind = next(kind for kind in found if found[kind]) if _chosen.device == "auto" else _chosen.device
    if not found[kind]:
        raise ParamsError(f"params.yaml: compute.device: PyTorch finds no {kind} here; set it to auto or cpu")
    return torch.device(kind, _own_gpu()) if kind == "cuda" else torch.device(kind)


def _own_gpu() -> int:
    """The number of this process's GPU; a `ParamsError` where the machine has more processes than GPUs."""
    own, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if own >= count:
        raise ParamsError(
            f"params.yaml: launch: {os.environ.get('LOCAL_WORLD_SIZE', own + 1)} processes, of which each needs a GPU, "
            f"and PyTorch finds {count} here; lower num_processes, or set compute.device to cpu"
        )
    return own


def precision() -> Precision:
    """What matrix products are computed in while a model trains; weights and optimizer are fp32 in any case.

    auto: bf16 where the device multiplies it in hardware, else fp32.
    """
    if _chosen.precision == "auto":
        return "bf16" if computes_bf16() else "fp32"
    return _chosen.precision


def frozen_dtype() -> torch.dtype:
    """What matrices that no gradient reaches are held in (`rlhf_lib/models/frozen.py`).

    auto: bf16 on a CUDA GPU that multiplies them in bf16 anyway, else fp32.
    """
    if _chosen.frozen_dtype != "auto":
        return torch.bfloat16 if _chosen.frozen_dtype == "bf16" else torch.float32
    on_a_gpu = _as_on_a_gpu or device().type == "cuda"
    return torch.bfloat16 if on_a_gpu and precision() == "bf16" else torch.float32


def eval_dtype(bf16_full_eval: bool) -> torch.dtype:
    """What the matrices of models are held in that the test prompts' answers are sampled from, and scored by; a line
    where that is slow."""
    if bf16_full_eval:
        _tell_slow_bf16("evaluate.bf16_full_eval: true")
    return torch.bfloat16 if bf16_full_eval else torch.float32


def shards() -> bool:
    """Whether this stage was launched by a file of FSDP, which takes a model's weights apart."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"  # set by accelerate launch


def product_dtype() -> torch.dtype:
    """`precision()`, as PyTorch names it."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision()]


def number_bytes() -> int:
    """Bytes of a number in `precision()`."""
    return 4 if precision() == "fp32" else 2


def autocast() -> AbstractContextManager[Any]:
    """A context in which matrix products are computed in `precision()`, as Trainer computes them."""
    dtype = product_dtype()
    return nullcontext() if dtype == torch.float32 else torch.autocast(device().type, dtype)


def gradient_checkpointing() -> bool | None:
    """What `compute.gradient_checkpointing` says; None for as memory allows."""
    return _chosen.gradient_checkpointing


def attn_implementation() -> str | None:
    """What `compute.attn_implementation` names; None for auto."""
    return None if _chosen.attn_implementation == "auto" else _chosen.attn_implementation


def computes_bf16() -> bool:
    """Whether the device multiplies bf16 matrices in hardware; elsewhere bf16 is many times slower than fp32."""
    kind = device().type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def favours_few_calls(at: torch.device) -> bool:
    """Whether few large calls, and few waits for their results, are quicker there than pieces that fit a cache: on all
    but CPUs."""
    return _as_on_a_gpu or at.type != "cpu"


def has_flash_attention(at: torch.device) -> bool:
    """Whether PyTorch's flash attention runs there: CUDA GPUs before the Ampere generation, such as a T4, have none."""
    return at.type != "cuda" or torch.cuda.get_device_capability(at)[0] >= 8


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """Take the paths of a GPU on a CPU too: to test them, and to count their calls."""
    global _as_on_a_gpu
    before, _as_on_a_gpu = _as_on_a_gpu, True
    try:
        yield
    finally:
        _as_on_a_gpu = before


def share_out(hidden_size: int) -> None:
    """Let this process, which has loaded a model of that size, compute on all cores, or on one if it has no wider one
    than `NARROW`."""
    global _widest
    _widest = max(_widest, hidden_size)
    all_cores = _cores()
    torch.set_num_threads(1 if _widest <= NARROW and device().type == "cpu" else all_cores)


@cache
def _cores() -> int:
    return torch.get_num_threads()


def multiply_with_onednn() -> None:
    """Multiply fp32 matrices with oneDNN where MKL would take a slower path.

    On a CPU with AVX-512, MKL uses it on Intel's processors only. The switch lets oneDNN round to bf16 if the CPU has
    AMX; without AMX, oneDNN has no such kernel and computes in fp32.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX512" and not torch.cpu._is_amx_tile_supported():
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]


@contextmanager
def multiplying_slices() -> Iterator[None]:
    """A context whose products of batches of fp32 matrices are MKL's also where `multiply_with_onednn` took the others.

    oneDNN copies matrices that are slices of longer ones, as the keys so far are, and keeps a kernel of megabytes for
    every length.
    """
    products = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    if torch.compiler.is_compiling() or products.fp32_precision != "bf16":
        yield
        return
    products.fp32_precision = "ieee"
    try:
        yield
    finally:
        products.fp32_precision = "bf16"


def multiply_in_tf32(enabled: bool | None) -> None:
    """Multiply fp32 matrices in TF32, which has 10 bits of fp32's 23, or not at all so; None: as PyTorch does.

    A `ParamsError` where it is asked for and the device has none.
    """
    if enabled is None:
        return
    from transformers.utils.import_utils import enable_tf32  # which stages that sample and score import anyway

    is_there = device().type == "cuda" and torch.cuda.get_device_capability()[0] >= 8
    if enabled and not is_there:
        raise ParamsError(
            "params.yaml: compute.tf32: needs a CUDA GPU of the Ampere generation or later, and this is "
            f"{'an older one' if device().type == 'cuda' else device().type}; leave it empty"
        )
    if is_there:
        enable_tf32(enabled)


@contextmanager
def multiplying_in_full() -> Iterator[None]:
    """A context whose products of fp32 matrices are no TF32's, whatever `compute.tf32` says: for what is held to a
    thousandth or less."""
    products = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = [kind.fp32_precision for kind in products]
    try:
        for kind in products:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, precision in zip(products, before, strict=True):
            kind.fp32_precision = precision


def attend_without_cudnn() -> None:
    """Leave attention to PyTorch's own kernels: cuDNN's, which an H100 prefers, builds a new plan for every shape.

    Each decoded token, and each batch without padding, has a shape of its own: there, planning took 4 ms a call, and
    sampling seven times as long (docs/performance.md).
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def trainer_kwargs() -> dict[str, Any]:
    """TrainingArguments of device and precision; TRL's configs would else switch bf16 and checkpointing on."""
    kind = device().type
    return {
        "bf16": precision() == "bf16",
        "fp16": precision() == "fp16",
        "use_cpu": kind == "cpu",
        "activation_checkpointing": False,  # training.set_checkpointing decides, once there is a model
        "tf32": _chosen.tf32,  # where it compiles, Trainer would else switch it on
        "torch_compile": _chosen.torch_compile,
        "dataloader_pin_memory": kind == "cuda",
    }
