"""Weights that no gradient reaches, held in bf16: half the memory, and no copy at each forward pass.

Only what matrix products read is held so: linear layers and, where that is wanted, embedding tables. Norms, heads and
what passes from layer to layer stay in fp32. Autocast rounds the weights of a linear layer in the same way, so that a
held model computes, to the bit, what it would in fp32 under bf16 autocast; the rows of a held table are rounded too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlhf_lib.models.heads import Fp32Linear


def hold(model: nn.Module, dtype: torch.dtype, tables: bool = True, untrained_only: bool = False) -> None:
    """Round a model's matrices to `dtype`, in place; fp32 leaves them as they are.

    tables: embeddings too, and with them an output layer that shares their weights. untrained_only: but for matrices
    that have a gradient, as of a model that is trained in part. What bitsandbytes holds stays as it is.
    """
    if dtype == torch.float32:
        return
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    spared = set() if tables else {id(module.weight) for module in embeddings}
    for module in model.modules():
        if not isinstance(module, (nn.Linear, Conv1D, nn.Embedding)) or isinstance(module, Fp32Linear):
            continue
        weights = list(module.parameters(recurse=False))
        if module.weight.dtype != torch.float32 or (untrained_only and any(weight.requires_grad for weight in weights)):
            continue
        for weight in weights:
            if id(weight) not in spared:
                weight.data = weight.data.to(dtype)  # in place: an output layer may share it
    for module in embeddings:
        if module.weight.dtype == dtype:
            module.register_forward_hook(_rows_in_fp32)
    _let_go_of_files(model)


def _let_go_of_files(model: nn.Module) -> None:
    """Copy what is left in fp32: on a CPU, safetensors' weights are the bytes of the file, all of which stay in memory
    as long as one of them does."""
    for weight in model.parameters():
        if weight.dtype == torch.float32 and weight.device.type == "cpu":
            weight.data = weight.data.clone()


def _rows_in_fp32(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """What a table gives, from which layer upon layer is added up."""
    return output.float()


def is_held(model: nn.Module) -> bool:
    """Whether `hold` rounded any of the model's weights."""
    return any(_held(module) for module in model.modules())


def autocast(model: nn.Module) -> AbstractContextManager[Any]:
    """A context in which a model that may be held can be called, wherever it is called from; in fp32 if it is not."""
    if not is_held(model):
        return _attending_in_fp32(model)
    return torch.autocast(next(model.parameters()).device.type, torch.bfloat16)


@contextmanager
def _attending_in_fp32(model: Any) -> Iterator[None]:
    """A context in which PyTorch's attention takes the place of flash attention, which has no fp32."""
    own = model.config._attn_implementation or ""
    if not own.startswith("flash_attention"):
        yield
        return
    model.set_attn_implementation("sdpa")
    try:
        yield
    finally:
        model.set_attn_implementation(own)


@contextmanager
def in_fp32(model: nn.Module) -> Iterator[None]:
    """A context in which a model multiplies in fp32 with the weights that it holds in bf16, a few layers at a time."""
    # with those of its children, which a module may read without calling them
    held = {module: [w for part in (module, *module.children()) for w in _held(part)] for module in model.modules()}
    users = Counter[Tensor]()

    def enter(module: nn.Module, inputs: Any) -> None:
        for weight in held[module]:
            users[weight] += 1
            weight.data = weight.data.float()

    def leave(module: nn.Module, *seen: Any) -> None:
        for weight in held[module]:
            users[weight] -= 1
            if not users[weight]:
                weight.data = weight.data.bfloat16()

    layers = [module for module, weights in held.items() if weights]
    hooks = [layer.register_forward_pre_hook(enter) for layer in layers]
    hooks += [layer.register_forward_hook(leave) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for weight in users:  # also of a forward pass that failed
            weight.data = weight.data.bfloat16()


def _held(module: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in module.parameters(recurse=False) if weight.dtype == torch.bfloat16]


@torch.no_grad()
def restore(model: PreTrainedModel, original: PreTrainedModel) -> None:
    """Give the held weights of a model, which has no adapters, the values that they had in `original`, in fp32."""
    exact = dict(original.named_parameters())
    for name, weight in model.named_parameters():
        if weight.dtype == torch.bfloat16:
            weight.data = exact[name].data.to(weight.device)
