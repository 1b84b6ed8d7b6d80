"""Dropout that is off while a model trains."""

from __future__ import annotations

from torch import nn


def disable_dropout(model: nn.Module) -> None:
    """Switch off what a model drops at random: modules, and numbers that layers hand to functions, as those of OPT and
    Falcon do. TRL's function of this purpose knows the modules alone."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
