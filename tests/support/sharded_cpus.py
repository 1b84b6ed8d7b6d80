"""FSDP2 on CPUs, which accelerate takes on accelerators only: runs a script with that settled before."""

import functools
import os
import runpy
import sys

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType


def shard_on_cpus():
    """Let accelerate shard where `accelerate launch` asks for FSDP and all processes are on CPUs."""
    begin = AcceleratorState.__init__

    @functools.wraps(begin)
    def begin_sharded(self, *args, fsdp_plugin=None, **kwargs):
        begin(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if os.environ.get("ACCELERATE_USE_FSDP") == "true" and self.distributed_type == DistributedType.MULTI_CPU:
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = begin_sharded


if __name__ == "__main__":
    shard_on_cpus()
    sys.argv = sys.argv[1:]
    script = sys.argv[0]
    run = runpy.run_path if script.endswith(".py") else runpy.run_module
    run(script, run_name="__main__")
