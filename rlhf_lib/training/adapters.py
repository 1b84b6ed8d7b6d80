"""Adapters that can be merged: what they may be put on, and whether the merged model is the trained one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as PEFTS_CHOICE
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import frozen, hardware
from rlhf_lib.models.loading import init_kwargs
from rlhf_lib.models.seeds import seeded

ALL_LINEAR = "all-linear"  # PEFT's word
_HEADS = ("score", "classifier")  # of classifiers, which are trained whole
_ROWS, _TOKENS = 3, 16  # of the forward pass by which a merged model is held to the trained one


def targets(named: Sequence[str] | None, model: PreTrainedModel) -> dict[str, Any]:
    """`target_modules` of `LoraConfig`, and `exclude_modules`, of the layers that the params name.

    None stands for what PEFT takes for the architecture, or for all linear layers where it knows none; `[all-linear]`
    for those in any case, but for two kinds of them: routers of experts, which give more than a product, and the last
    layer of a state space model, whose kernels read its weights past the adapter.
    """
    if named is None and model.config.model_type in PEFTS_CHOICE:
        return {}
    if named is not None and list(named) != [ALL_LINEAR]:
        return {"target_modules": list(named)}
    modules = dict(model.named_modules())
    unfit = []
    for name, module in modules.items():
        parent, _, own_name = name.rpartition(".")
        is_router = "Router" in type(module).__name__
        if is_router or (own_name == "out_proj" and hasattr(modules[parent], "conv1d")):
            unfit.append(name)
    return {"target_modules": ALL_LINEAR, "exclude_modules": unfit}


def check_targets(section: str, model: PreTrainedModel, config: LoraConfig) -> None:
    """A `ParamsError` where adapters would be put on weights that they cannot be merged into, or that they would not
    train.

    An output layer that shares its weights with the embedding would change both once the adapter is merged; TRL reads
    the weights of any output layer itself, past the adapter. A classifier's head is trained whole beside the adapters.
    """
    if not config.target_modules or config.target_modules == ALL_LINEAR:
        return  # PEFT's choice: never one of these
    owners: dict[int, list[str]] = defaultdict(list)
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(weight := getattr(module, "weight", None), Tensor):
            owners[id(weight)].append(name)
    for name, module in modules.items():
        if not check_target_module_exists(config, name):
            continue
        others = [other for other in owners[id(getattr(module, "weight", None))] if other != name]
        if others:
            fault = f"its weights are also those of {others[0]}, which a merged adapter would change too"
        elif isinstance(module, nn.Embedding):
            fault = "an embedding"
        elif module is model.get_output_embeddings():
            fault = "the output layer, whose adapter would never be trained"
        elif name.rpartition(".")[2] in _HEADS:
            fault = "the head, which is trained whole beside the adapters"
        else:
            continue
        raise ParamsError(
            f"params.yaml: {section}.lora_target_modules: {name.rpartition('.')[2]}: {fault}; name layers of the "
            "model's blocks alone, or null for those that peft takes for this architecture"
        )


@torch.no_grad()
def some_logits(model: nn.Module, trained: PreTrainedModel) -> Tensor:
    """Logits of a few rows of tokens, always the same, in fp32 on the CPU. `trained`: the model inside `model`."""
    config = trained.config.get_text_config()
    vocabulary = trained.get_input_embeddings().num_embeddings
    length = min(_TOKENS, getattr(config, "max_position_embeddings", None) or _TOKENS)
    ids = torch.randint(vocabulary, (_ROWS, length), generator=seeded("merged", vocabulary))
    if (pad := getattr(config, "pad_token_id", None)) is not None:
        ids[ids == pad] = (pad + 1) % vocabulary  # a classifier reads its score at the last token that pads nothing
    ids = ids.to(trained.device)
    with frozen.autocast(trained), hardware.multiplying_in_full():
        return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().cpu()


def merged_fault(merged: PreTrainedModel, path: Path, expected: Tensor) -> str | None:
    """By how much the model that was written to `path` is not the trained one, whose `some_logits` are `expected`; None
    where it is.

    The tolerance is what rounding of a sum of weights may cost, relative to the length of all logits: a thousandth in
    fp32, a tenth in 16 bits.
    """
    # whatever attention the model computes with, the weights are the same; some have no other than their own
    kwargs = {key: value for key, value in init_kwargs().items() if key != "attn_implementation"}
    again = type(merged).from_pretrained(path, **{**kwargs, "dtype": merged.dtype}).to(merged.device)
    difference = ((some_logits(again, again) - expected).norm() / expected.norm().clamp(min=1e-6)).item()
    if difference <= (1e-3 if merged.dtype == torch.float32 else 0.1):
        return None
    return f"its logits differ by {difference:.1%} of their length"
