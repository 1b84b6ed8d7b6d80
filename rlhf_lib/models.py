"""Loading and saving models and tokenizers, the same way in every stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import ACT2FN, NewGELUActivation

from rlhf_lib import attention
from rlhf_lib.params.schema import ParamsError

# Keys that transformers writes with the machine's or the moment's values: they would change the hash of the out.
_UNSTABLE_TOKENIZER_KEYS = ("is_local", "local_files_only", "name_or_path")


def device() -> torch.device:
    """CUDA, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def init_kwargs() -> dict[str, Any]:
    """Arguments of `from_pretrained`: fp32 weights, no remote code, no pickles.

    On a CPU the backward pass of PyTorch's fused attention is slower than plain matrix products.
    """
    attention = "eager" if device().type == "cpu" else "sdpa"
    return {
        "dtype": torch.float32,
        "attn_implementation": attention,
        "trust_remote_code": False,
        "use_safetensors": True,
    }


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(path, trust_remote_code=False)


def load_policy(path: str | Path) -> PreTrainedModel:
    """A causal language model in eval mode on `device()`, that runs as `run_fast` makes it."""
    model = AutoModelForCausalLM.from_pretrained(path, **init_kwargs()).to(device()).eval()
    run_fast(model)
    return model


def run_fast(model: PreTrainedModel) -> None:
    """Let a model take rows without padding between them, and compute the same function in fewer steps."""
    if model._supports_attention_backend:
        model.set_attn_implementation(attention.IMPLEMENTATION)
    fuse_gelu(model)


def fuse_gelu(model: PreTrainedModel) -> None:
    """Compute `gelu_new` as one kernel instead of eight."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                # the same function [arXiv:1606.08415, section 2]
                setattr(module, name, ACT2FN["gelu_pytorch_tanh"])


def multiply_with_onednn() -> None:
    """Multiply fp32 matrices with oneDNN where MKL would take a slower path.

    On a CPU with AVX-512, MKL uses it on Intel's processors only. The switch lets oneDNN round to bf16 if the CPU has
    AMX; without AMX, oneDNN has no such kernel and computes in fp32.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX512" and not torch.cpu._is_amx_tile_supported():
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]


def computes_bf16() -> bool:
    """Whether the device multiplies bf16 matrices in hardware; elsewhere bf16 is many times slower than fp32."""
    if device().type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device().type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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
