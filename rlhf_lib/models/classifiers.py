"""Reward models of architectures of which transformers has no sequence classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutputWithPast


class _Classifier(GenericForSequenceClassification):
    """transformers' own for decoders, of whatever trunk: some give no cache."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> SequenceClassifierOutputWithPast:
        """(B, labels) logits at each row's last token that is not the pad token."""
        hidden = self.base_model(input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        said = input_ids != self.config.get_text_config().pad_token_id
        last = (said * torch.arange(input_ids.size(1), device=input_ids.device)).argmax(-1)
        rows = torch.arange(len(input_ids), device=input_ids.device)
        return SequenceClassifierOutputWithPast(logits=self.score(hidden[rows, last]))


def register(config: PreTrainedConfig) -> None:
    """Let `AutoModelForSequenceClassification` know a classifier of the config's architecture, where transformers has a
    causal language model of it alone.

    It is as transformers makes those of most decoders: one linear layer on what the trunk gives for a row's last token.
    The name is that of its language model, with the other ending. Only this project reads what is saved of it.
    """
    kind = type(config)
    if kind in AutoModelForSequenceClassification._model_mapping or kind not in AutoModelForCausalLM._model_mapping:
        return
    language_model = AutoModelForCausalLM._model_mapping[kind]
    name = language_model.__name__
    if not name.endswith("ForCausalLM"):
        return
    # the architecture's own base class: weights begin as it says, and are split as it says
    base = [one for one in language_model.__mro__ if issubclass(one, PreTrainedModel) and one is not PreTrainedModel]
    members = {
        "config_class": kind,
        "base_model_prefix": language_model.base_model_prefix,
        # of a class from elsewhere, transformers would not compute the buffers that no checkpoint has
        "__module__": language_model.__module__,
    }
    classifier = type(name.replace("ForCausalLM", "ForSequenceClassification"), (_Classifier, base[-1]), members)
    # the config is transformers' own, for which it takes no other class unasked
    AutoModelForSequenceClassification.register(kind, classifier, exist_ok=True)
