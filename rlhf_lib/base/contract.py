"""The contract of a completed model: every part of it looked at, or refused in one line."""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models.contract import Contract
from rlhf_lib.models.layers import find_layers
from rlhf_lib.models.loading import context_length
from rlhf_lib.models.proof import prove_packing, unfit
from rlhf_lib.models.settled import TODAY, asks_for_the_day, begins_with
from rlhf_lib.models.stops import stop_ids


def examine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, had_template: bool, new_tokens: Mapping[str, str]
) -> Contract:
    """The contract of a model that `complete` has been through; a `ParamsError` for what it cannot do.

    had_template: whether it brought its chat template. new_tokens: what `complete` added, and how.
    """
    if told := unfit(model):
        raise ParamsError(f"params.yaml: base.model_name_or_path: {told}")
    path, layers = find_layers(model)
    if not len(layers):
        raise ParamsError(
            f"params.yaml: base.model_name_or_path: no layers are found in a {model.config.model_type}, which holds no "
            "list of modules; name a model that is a stack of layers"
        )
    proof = prove_packing(model)
    template = str(tokenizer.chat_template)
    return Contract(
        architecture=model.config.model_type,
        layers=path,
        num_layers=len(layers),
        context=context_length(model),
        bos_token=begins_with(tokenizer),
        stop_tokens=[str(tokenizer.convert_ids_to_tokens(token)) for token in stop_ids(model)],
        template="the model's own" if had_template else "the project's",
        template_date=TODAY.isoformat() if asks_for_the_day(template) else None,
        new_tokens=dict(new_tokens),
        packs=proof.packs,
        padded_because=proof.reason,
    )
