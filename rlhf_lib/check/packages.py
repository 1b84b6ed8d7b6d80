"""Packages that the params need and that are not installed; a stage would tell only when it begins to train."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from rlhf_lib.common.policies import TRAINERS, section

# by a beginning of transformers' OptimizerNames: the module, and what pip installs it by
OF_OPTIMIZER = {
    r"adamw_bnb|adamw_8bit|ademamix|lion|paged|rmsprop_bnb": ("bitsandbytes", "bitsandbytes"),
    r"adamw_torch_[48]bit": ("torchao", "torchao"),
    r"lomo|adalomo": ("lomo_optim", "lomo-optim"),
    r"grokadamw": ("grokadamw", "grokadamw"),
    r"schedule_free": ("schedulefree", "schedulefree"),
    r"stable_adamw": ("optimi", "torch-optimi"),
    r"adamw_torch_xla": ("torch_xla", "torch_xla"),
    r"adamw_torch_npu": ("torch_npu", "torch-npu"),
    r"adamw_anyprecision": ("torchdistx", "torchdistx"),
}


def faults(sections: Mapping[str, Any]) -> Iterator[str]:
    """A line, `section.key: ...`, on each package that the training of what is wanted lacks."""
    methods = sections.get("methods")
    wanted = dict.fromkeys(section(stage) for stage in TRAINERS if getattr(methods, stage, True))
    for name in wanted:
        params = sections.get(name)
        if params is None:
            continue
        if lacked := missing(params.optim):
            yield f"{name}.optim: {params.optim} needs {lacked}; pip install {lacked}, or set it to adamw_torch_fused"
        for bits in (8, 4):
            if getattr(params, f"load_in_{bits}bit") and find_spec("bitsandbytes") is None:
                yield f"{name}.load_in_{bits}bit: needs bitsandbytes; pip install bitsandbytes, or set it to false"


def missing(optimizer: str) -> str | None:
    """What pip installs the package of an optimizer by, where it is not installed."""
    found = (names for beginning, names in OF_OPTIMIZER.items() if re.match(beginning, optimizer))
    return next((by for module, by in found if find_spec(module) is None), None)
