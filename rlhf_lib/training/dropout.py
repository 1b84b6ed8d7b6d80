"""A model that says the same while it trains as when it is asked."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

_BY_LAYER = ("layerdrop", "jitter_noise", "input_jitter_noise")


def disable_dropout(model: nn.Module) -> None:
    """Switch off, in place, what a model draws at random in training: layers of dropout, and rates that modules keep
    as numbers for functions of dropout (OPT, BLOOM, Granite), which TRL's function of that purpose passes over."""
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        for name, value in list(vars(module).items()):
            if isinstance(value, float) and ("dropout" in name or name in _BY_LAYER):
                setattr(module, name, 0.0)
