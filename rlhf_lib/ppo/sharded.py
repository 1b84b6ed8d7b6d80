"""PPO's models where FSDP2 has sharded them: how they are called between the updates.

A sharded layer gathers its weights when it is called, and frees them after. To gather is the work of all processes at
the same moment, and of the module that was sharded as a whole, its root, when that is called. Sampling and log-probs
call a part of it, the policy, and not equally often in each process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from rlhf_lib.models.forward import trunk
from rlhf_lib.models.layers import base_model, blocks
from rlhf_lib.ppo.model import ActorCritic, Model, Reference


class Shards:
    """The shards of a policy and its critic, and of their reference; all of it does nothing where there are none.

    root: what the trainer shards. reference: gives the frozen policy; if it is a model of its own, it is sharded here.
    gathers: whether the policy is put together before it samples, or each layer for each token.
    """

    def __init__(self, root: ActorCritic, reference: Reference, accelerator: Accelerator, gathers: bool) -> None:
        self.root, self.accelerator, self.gathers = root, accelerator, gathers
        self._reference = reference
        if accelerator.is_fsdp2:
            with reference() as model:
                if model is not root.policy:
                    _shard(model, accelerator)

    def sampling(self) -> AbstractContextManager[None]:
        """A context in which the policy samples."""
        if self.gathers and isinstance(self.root, FSDPModule):
            again = self.accelerator.state.fsdp_plugin.reshard_after_forward
            return _whole(self.root, self.root.policy, again)
        return self.reading()

    def reading(self) -> AbstractContextManager[None]:
        """A context in which the policy is called for its log-probs."""
        return self._in_step(self.root, self.root.policy)

    @contextmanager
    def reference(self) -> Iterator[Model]:
        """A context in which the reference can be called."""
        with self._reference() as model:
            root = self.root if model is self.root.policy else model
            with self._in_step(root, model):
                yield model

    def load(self, whole: Mapping[str, Tensor]) -> None:
        """Take over weights of policy and critic, by their names; of each, a process keeps its share."""
        weights = dict(self.root.named_parameters())
        with torch.no_grad():
            for name, saved in whole.items():
                weight = weights[name]
                if isinstance(weight, DTensor):
                    where = weight.device_mesh, weight.placements
                    saved = distribute_tensor(saved.to(weight.device), *where, src_data_rank=None)
                weight.copy_(saved)

    def _in_step(self, root: nn.Module, model: Model) -> AbstractContextManager[None]:
        return _in_step(root, model, self.accelerator) if isinstance(root, FSDPModule) else nullcontext()


def _shard(model: Model, accelerator: Accelerator) -> None:
    """Shard a model that is not trained, layer by layer, as accelerate does it with the one that is."""
    offload = accelerator.state.fsdp_plugin.cpu_offload
    for block in blocks(base_model(model)):
        fully_shard(block, offload_policy=offload)
    fully_shard(model, offload_policy=offload)


@contextmanager
def _called(root: Any) -> Iterator[None]:
    """A context in which parts of the root can be called: what no layer holds is gathered, such as the embeddings."""
    if "_nothing" not in vars(root):
        root._nothing = lambda: None
        register_fsdp_forward_method(root, "_nothing")
    root._nothing()  # a call of the root first: FSDP takes for the root whichever module is called first
    root.unshard()
    try:
        yield
    finally:
        root.reshard()


@contextmanager
def _whole(root: nn.Module, model: Model, again: bool) -> Iterator[None]:
    """A context in which a part of the root is whole in every process. `again`: whether its layers else free their
    weights after each call."""
    layers = [module for module in model.modules() if isinstance(module, FSDPModule)]
    with torch.no_grad(), _called(root):
        for layer in layers:
            layer.set_reshard_after_forward(False, recurse=False)
            layer.unshard()
        try:
            yield
        finally:
            for layer in layers:
                layer.set_reshard_after_forward(again, recurse=False)
                layer.reshard()


@contextmanager
def _in_step(root: nn.Module, model: Model, accelerator: Accelerator) -> Iterator[None]:
    """A context in which a part of the root gathers its layers as they are called. A process that is through goes on
    with calls that nobody reads until all are, as transformers' generate does it by `synced_gpus`."""
    inner = base_model(model)

    def callers(mine: float) -> Tensor:
        return accelerator.reduce(torch.tensor(mine, device=accelerator.device), "sum")

    def announce(*_: Any) -> None:
        callers(1.0)

    with torch.no_grad(), _called(root):
        # before the hook by which the layer gathers its weights
        hook = blocks(inner)[0].register_forward_pre_hook(announce, prepend=True)
        try:
            yield
        finally:
            hook.remove()
        token = torch.ones(1, 1, dtype=torch.long, device=inner.device)
        while callers(0.0) > 0:
            trunk(inner)(input_ids=token, attention_mask=token, use_cache=False)
