"""The shapes of the models that the params name, before there are any weights: built on the meta device."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
)

from rlhf_lib.base.params import BaseParams
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import classifiers, frozen, hardware
from rlhf_lib.models.directory import config_fault
from rlhf_lib.scoring.source import RewardSource
from rlhf_lib.training import memory, weights
from rlhf_lib.training.memory import ModelShape
from rlhf_lib.training.params import WeightsParams

Kind = Literal["policy", "reward", "trunk"]

_CLASSES: dict[str, Any] = {
    "policy": AutoModelForCausalLM,
    "reward": AutoModelForSequenceClassification,
    "trunk": AutoModel,
}
_TASKS: dict[str, weights.Task] = {"policy": "CAUSAL_LM", "reward": "SEQ_CLS", "trunk": "FEATURE_EXTRACTION"}


def base_config(params: BaseParams) -> Any:
    """The config of the model that all stages start from; a `ParamsError` where it is not at hand."""
    if params.model_name_or_path is not None:
        return read_config(params.model_name_or_path, params.model_revision, "base.model_name_or_path")
    sizes = {name: getattr(params, name) for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")}
    return GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)


def read_config(name: str, revision: str | None, param: str) -> Any:
    """The config in a directory, or of a hub model in the cache; nothing is downloaded."""
    place = Path(name).expanduser()
    try:
        config = AutoConfig.from_pretrained(
            place if place.is_dir() else name,
            revision=revision,
            local_files_only=not place.is_dir(),
            trust_remote_code=False,
        )
        if told := config_fault(config):
            raise ParamsError(f"{PARAMS_FILE}: {param}: {name}: {told}")
        return config
    except Exception:  # whatever a broken file makes the libraries raise
        if place.is_dir():
            told = "has no config.json that transformers knows; copy that of the model there"
            raise ParamsError(f"{PARAMS_FILE}: {param}: {name} {told}") from None
        at = f" --revision {revision}" if revision else ""
        raise ParamsError(
            f"{PARAMS_FILE}: {param}: the config of {name} is not at hand, or of no kind that transformers knows; run "
            f"`hf download {name} config.json{at}`, or name a directory with a config.json"
        ) from None


def source_config(source: RewardSource, base: Any, param: str) -> Any:
    """The config of the model that a reward source names: that of `base` for what the pipeline makes of it."""
    if source.kind == "directory" and source.location in ("models/base", "models/sft"):
        return base
    return read_config(source.location, source.revision, param)


def shape(section: str, config: Any, kind: Kind, params: WeightsParams | None) -> ModelShape:
    """The shape of a model of a config, with the weights that the params train; of `None`, none is trained."""
    config.num_labels = 1
    classifiers.register(config)
    with torch.device("meta"):
        model = _CLASSES[kind].from_config(config)
        if params is None:
            model.requires_grad_(False)
            frozen.hold(model, hardware.frozen_dtype(), tables=kind != "policy")  # a reference keeps its own
        else:
            model = weights.choose(section, model, params, _TASKS[kind])
            if not getattr(params, "is_quantized", False):
                weights.hold_frozen(model, tables=section not in ("dpo", "kto"))
    return memory.shape(model)
