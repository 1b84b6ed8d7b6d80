"""Heads whose outputs are numbers: values and rewards, whose differences are what is learnt from."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class Fp32Linear(nn.Linear):
    """A linear layer that computes in fp32 under autocast too, forwards and backwards.

    bf16 has 8 bits: of two values of about 3 it would keep no difference below 1/64.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out), fp32 as the weights are."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


def in_fp32(layer: nn.Linear) -> Fp32Linear:
    """The layer itself, with its weights and its name in the model, as one that computes in fp32."""
    layer.__class__ = Fp32Linear  # a wrapper would rename the weights, and PEFT copies the layer
    return cast(Fp32Linear, layer)


def score_in_fp32(model: PreTrainedModel) -> None:
    """Let a classifier's last layer, which stands on its trunk and gives the scores, compute in fp32."""
    trunk = set(model.base_model.modules())
    for module in model.modules():
        if type(module) is nn.Linear and module not in trunk and module.out_features == model.config.num_labels:
            in_fp32(module)
