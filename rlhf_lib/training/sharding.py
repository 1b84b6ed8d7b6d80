"""Whether weights are sharded where the launcher was asked for it, and that it changes no number.

FSDP2 is the one way. Where it cannot shard, as on CPUs, accelerate says nothing.
"""

from __future__ import annotations

import os

from transformers import Trainer

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import hardware


def refuse_others() -> None:
    """A `ParamsError` where `launch` asks for another way to shard; to be called before a trainer is made."""
    found, by_fsdp = None, hardware.shards()
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        found = "DeepSpeed"
    elif by_fsdp and os.environ.get("FSDP_VERSION", "1") != "2":
        found = "FSDP's first version"
    elif by_fsdp and (kind := os.environ.get("FSDP_STATE_DICT_TYPE")) != "FULL_STATE_DICT":
        found = f"fsdp_state_dict_type: {kind}"
    if found:
        raise ParamsError(
            f"params.yaml: launch: {found}: weights are sharded by FSDP2 alone, and checkpoints are whole; name "
            "launch/fsdp2.yaml instead"
        )


def check(trainer: Trainer) -> None:
    """A `ParamsError` where `launch` asks for shards, and every process would hold all weights."""
    if trainer.is_fsdp_enabled:
        _compute_as_unsharded(trainer)
    elif hardware.shards():
        count, kind = trainer.accelerator.num_processes, trainer.args.device.type
        raise ParamsError(
            f"params.yaml: launch: FSDP shards the weights over several GPUs, and this is {count} x {kind}: each "
            "would hold all of them; name launch/gpus.yaml, or launch/cpu-2.yaml, in its place"
        )


def _compute_as_unsharded(trainer: Trainer) -> None:
    """Gather weights in their own precision, and compute under autocast, as without shards.

    accelerate would cast all weights, inputs, outputs and gradients to 16 bits: rewards, values, log-probs and losses
    too.
    """
    trainer.accelerator.state.fsdp_plugin.mixed_precision_policy = None
    trainer.autocast_smart_context_manager = trainer.accelerator.autocast
