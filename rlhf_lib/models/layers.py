"""Where a model's layers are, and the model inside its adapters."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel


def base_model(model: nn.Module) -> PreTrainedModel:
    """The model that transformers made, without the adapters that PEFT may have put around it."""
    return getattr(model, "get_base_model", lambda: model)()


def find_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The name and the list of the model's transformer layers; an empty list where none is found.

    It is the outermost list of as many modules as the config has layers: experts of a layer are lists too. Where the
    config does not say how many there are, it is the longest.
    """
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    fitting = [(name, module) for name, module in lists if len(module) == count]
    if fitting:
        return min(fitting, key=lambda found: found[0].count("."))
    return max(lists, key=lambda found: len(found[1]), default=("", nn.ModuleList()))


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The model's transformer layers."""
    return find_layers(model)[1]
