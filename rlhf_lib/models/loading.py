"""Loading and saving models and tokenizers, the same way in every stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import ACT2FN, NewGELUActivation
from transformers.utils import logging

from rlhf_lib.common.hub import explain, one_line, patiently
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import attention, hardware

# Keys that transformers writes with the machine's or the moment's values: they would change the hash of the out.
_UNSTABLE_TOKENIZER_KEYS = ("is_local", "local_files_only", "name_or_path")


def init_kwargs() -> dict[str, Any]:
    """Arguments of `from_pretrained`: fp32 weights, no remote code, no pickles.

    On a CPU the backward pass of PyTorch's fused attention is slower than plain matrix products.
    """
    automatic = "eager" if hardware.device().type == "cpu" else "sdpa"
    return {
        "dtype": torch.float32,
        "attn_implementation": hardware.attn_implementation() or automatic,
        "trust_remote_code": False,
        "use_safetensors": True,
    }


def fetch(auto_class: Any, name: str | Path, revision: str | None, **kwargs: Any) -> Any:
    """What `auto_class.from_pretrained` gives, from a directory or the hub, which is asked again where that helps."""
    kwargs = {"trust_remote_code": False, **kwargs}
    return patiently(lambda: auto_class.from_pretrained(name, revision=revision, **kwargs))


@contextmanager
def explaining(fault: str, name: str, revision: str | None, instead: str, wanted: str) -> Iterator[None]:
    """A context that loads a model: what goes wrong becomes a `ParamsError` that begins with `fault`.

    instead: what the user may do if the hub does not give it. wanted: what to do, or what it must be, if it is there.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = explain(error, name, revision, "model", instead) or f"{one_line(error)}; {wanted}"
        raise ParamsError(f"{fault}: {reason}") from None


@contextmanager
def without_load_report() -> Iterator[None]:
    """A context in which transformers prints no table of missing weights: whoever loads looks at them."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a directory."""
    return AutoTokenizer.from_pretrained(path, trust_remote_code=False)


def load_policy(path: str | Path, **quantization: Any) -> PreTrainedModel:
    """A causal language model in eval mode on the device, that runs as `run_fast` makes it.

    `quantization`: `weights.quantization()`, which says how weights are rounded and where they are put.
    """
    model = AutoModelForCausalLM.from_pretrained(path, **init_kwargs(), **quantization)
    if not quantization:
        model = model.to(hardware.device())
    run_fast(model)
    return model.eval()


def run_fast(model: PreTrainedModel) -> None:
    """Let a model take rows without padding between them, and compute the same function in fewer steps.

    Where `compute.attn_implementation` names an attention, the model keeps that, and rows are padded.
    """
    if model._supports_attention_backend and hardware.attn_implementation() is None:
        model.set_attn_implementation(attention.IMPLEMENTATION)
    fuse_gelu(model)


def fuse_gelu(model: PreTrainedModel) -> None:
    """Compute `gelu_new` as one kernel instead of eight."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                # the same function [arXiv:1606.08415, section 2]
                setattr(module, name, ACT2FN["gelu_pytorch_tanh"])


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str | Path) -> None:
    """Write weights, config and tokenizer, and only files whose bytes depend on nothing else."""
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    config_file = Path(path) / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    stable = {key: value for key, value in config.items() if key not in _UNSTABLE_TOKENIZER_KEYS}
    config_file.write_text(json.dumps(stable, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def context_length(model: PreTrainedModel) -> int | None:
    """The most tokens (prompt and response together) that the model can attend to, where its config says so."""
    config = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None)


def check_length(param: str, value: int, model: PreTrainedModel) -> None:
    """A `ParamsError` when a length in tokens passes what the model can attend to."""
    limit = context_length(model)
    if limit is not None and value > limit:
        raise ParamsError(
            f"params.yaml: {param}: {value} tokens, but the model attends to {limit}; set it to at most {limit}"
        )
