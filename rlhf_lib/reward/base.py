"""What a reward model starts from: a causal language model or an encoder, with a new head of one output."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from rlhf_lib.base import model as base
from rlhf_lib.common.schema import PARAMS_FILE
from rlhf_lib.common.terminal import listed
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.reward.params import JudgeParams
from rlhf_lib.scoring.classifier import read_classifier
from rlhf_lib.scoring.reward_model import Bounds, RewardModel


def load(
    section: str, params: JudgeParams, quantization: Mapping[str, Any], bounds: Bounds | None = None
) -> RewardModel:
    """The untrained reward model of params section `section`; its head is drawn with the section's seed.

    `quantization`: what `quantization()` of `rlhf_lib.training` gives.

    A decoder that brings no pad token or no chat template gets them, as in stage base. A tokenizer with a separator
    token and no template is an encoder's: it gets prompt and answer as a pair of texts. A `ParamsError` where the
    model cannot be had, or is too short for `max_length`.
    """
    source, where = params.source, f"{PARAMS_FILE}: {section}.model_name_or_path: {params.model_name_or_path}"
    if source.kind == "directory" and not os.path.isdir(source.location):
        raise ParamsError(f"{where}: no such directory; models/sft and models/base are made by dvc repro")
    set_seed(params.seed)
    model, tokenizer, info = read_classifier(
        source.location,
        source.revision,
        f"{where}: cannot be loaded",
        "model that transformers can make a classifier",
        **quantization,
    )
    _check_trunk(where, model, info)
    if tokenizer.chat_template is not None or tokenizer.sep_token is None:
        _complete(where, model, tokenizer, params.seed)
    reward = RewardModel(model, tokenizer, bounds=bounds)
    if reward.pad_id is None:
        raise ParamsError(f"{where}: its tokenizer has no pad token; name another model")
    if reward.limit is not None and params.max_length > reward.limit:
        raise ParamsError(
            f"{PARAMS_FILE}: {section}.max_length: {params.max_length} tokens, but the model attends to "
            f"{reward.limit}; set it to at most {reward.limit}"
        )
    return reward


def _check_trunk(where: str, model: PreTrainedModel, info: dict[str, Any]) -> None:
    """A `ParamsError` where more than a head and a pooler would be random."""
    absent = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    trunk = sorted(key for key in absent if key.startswith(f"{model.base_model_prefix}.") and ".pooler." not in key)
    if trunk:
        raise ParamsError(
            f"{where}: the checkpoint has no fitting weights for {listed(trunk)}; name one whose weights are "
            "those of its config"
        )


def _complete(where: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
    if tokenizer.eos_token is None:
        raise ParamsError(
            f"{where}: its tokenizer has no EOS token, with which dialogues end; write one of its tokens as eos_token "
            "into its tokenizer_config.json, or name another model"
        )
    base.complete(model, tokenizer, seed)
