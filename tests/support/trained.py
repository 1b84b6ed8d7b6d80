"""What a trainer holds after its run: weights and the rows of its log."""

from __future__ import annotations

import torch
from torch.distributed.tensor import DTensor


def weights(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def flat(state):
    """All weights of a state dict in a row."""
    return torch.cat([tensor.flatten() for tensor in state.values()])


def whole(tensor):
    """A tensor, put together if this process has a shard of it; all processes must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def same(one, other):
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def rows(trainer, key="loss"):
    """The logged rows that have `key`, without what differs from run to run."""
    log = [entry for entry in trainer.state.log_history if key in entry]
    varying = ("epoch", "runtime", "per_second")
    return [{k: v for k, v in entry.items() if not any(word in k for word in varying)} for entry in log]


def column(trainer, key):
    return [row[key] for row in rows(trainer, key)]
