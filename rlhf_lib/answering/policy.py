"""The model that answers: a directory, or a commit of a hub id."""

from __future__ import annotations

import torch

from rlhf_lib import talk
from rlhf_lib.models import frozen, hardware, loading
from rlhf_lib.models.stops import set_ends
from rlhf_lib.scoring.source import RewardSource


def load(source: RewardSource, dtype: torch.dtype) -> talk.Policy:
    """The policy, with what ends its answers settled; a `SystemExit` of one line where it cannot be had.

    dtype: what its matrices are held in (`frozen.hold`).
    """
    policy = talk.load(source.location) if source.kind == "directory" else _of_hub(source)
    if policy.tokenizer.pad_token_id is None:
        policy.tokenizer.pad_token = policy.tokenizer.eos_token
    frozen.hold(policy.model, dtype)
    return policy


def _of_hub(source: RewardSource) -> talk.Policy:
    name, revision = source.location, source.revision
    fault = f"{name}@{revision}: cannot be loaded as a language model"
    must_be = "it must be a causal language model with config.json, safetensors and tokenizer"
    with loading.explaining(fault, name, revision, "name a directory", must_be):
        model, tokenizer = loading.fetch_causal(name, revision)
        if tokenizer.chat_template is None:
            raise loading.Unfit("it has no chat template; stage base gives one (base.model_name_or_path, models/base)")
        set_ends(model, tokenizer)
    model = model.to(hardware.device())
    loading.run_fast(model)
    return talk.Policy(name, model.eval(), tokenizer)
