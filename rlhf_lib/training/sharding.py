"""Whether weights are sharded where the launcher was asked for it: where it cannot, accelerate says nothing."""

from __future__ import annotations

import os

from transformers import Trainer

from rlhf_lib.common.yaml import ParamsError

_ASKED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}  # set by accelerate launch


def check(trainer: Trainer) -> None:
    """A `ParamsError` where `launch` asks for shards, and every process would hold all weights."""
    asked = [name for variable, name in _ASKED.items() if os.environ.get(variable, "false").lower() == "true"]
    if asked and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        count, kind = trainer.accelerator.num_processes, trainer.args.device.type
        raise ParamsError(
            f"params.yaml: launch: {asked[0]} shards the weights over several GPUs, and this is {count} x {kind}: each "
            "would hold all of them; name launch/gpus.yaml, or launch/cpu-2.yaml, in its place"
        )
