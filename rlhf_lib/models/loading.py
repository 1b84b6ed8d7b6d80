"""Loading and saving models and tokenizers, the same way in every stage."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.activations import ACT2FN, NewGELUActivation
from transformers.utils import find_adapter_config_file, logging

from rlhf_lib.common.hub import explain, one_line, patiently
from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import attention, classifiers, contract, directory, frozen, hardware
from rlhf_lib.models.bounded import Unruly
from rlhf_lib.models.proof import prove_packing
from rlhf_lib.models.settled import settle

# Keys that transformers writes with the machine's or the moment's values: they would change the hash of the out.
_UNSTABLE_TOKENIZER_KEYS = ("is_local", "local_files_only", "name_or_path")


class Unfit(Exception):
    """A model that cannot serve: what is wrong with it, and what to do."""


def init_kwargs() -> dict[str, Any]:
    """Arguments of `from_pretrained`: fp32 weights, no remote code, no pickles.

    On a CPU the backward pass of PyTorch's fused attention is slower than plain matrix products. Elsewhere None lets
    transformers take that one where the architecture has it; GPT-Neo and DeBERTa, say, have none.
    """
    automatic = "eager" if hardware.device().type == "cpu" else None
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


def fetch_tokenizer(name: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer in a directory or of the hub, its chat template settled."""
    try:
        tokenizer = fetch(AutoTokenizer, name, revision)
        settle(tokenizer)
        return tokenizer
    except Exception as error:  # whatever a broken file makes the libraries raise
        if revision is None and os.path.isdir(name) and directory.library_fault(error) is None:
            is_fast = os.path.isfile(Path(name) / "tokenizer.json")
            way_out = "copy the tokenizer's files again" if is_fast else directory.SAVE_TOKENIZER
            raise Unfit(f"its tokenizer cannot be read ({one_line(error)}); {way_out}") from error
        raise


def fetch_config(name: str | Path, revision: str | None, auto_class: Any) -> Any:
    """The config in a directory or of the hub, for a model of `auto_class`.

    An `Unfit` where its sizes are those of no model, or where the weights in the directory are far too few for them:
    the rest would be drawn at random, and may not fit into the memory.
    """
    config = fetch(AutoConfig, name, revision)
    if auto_class is AutoModelForSequenceClassification:
        classifiers.register(config)
    told = directory.config_fault(config)
    if told is None and os.path.isdir(name) and type(config) in auto_class._model_mapping:
        with only_errors(), torch.device("meta"):
            model = auto_class.from_config(deepcopy(config), trust_remote_code=False)
        told = directory.size_fault(name, model.num_parameters())
    if told:
        raise Unfit(told)
    return config


@contextmanager
def explaining(fault: str, name: str, revision: str | None, instead: str, wanted: str) -> Iterator[None]:
    """A context that loads a model: what goes wrong becomes a `ParamsError` that begins with `fault`.

    instead: what the user may do if the hub does not give it. wanted: what to do, or what it must be, if it is there.
    """
    try:
        if not os.path.isdir(name):
            _check_no_adapters(name, revision)
        elif revision is None:
            check_directory(name)
        yield
    except (Unfit, Unruly) as unfit:
        raise ParamsError(f"{fault}: {unfit}") from None
    except Exception as error:  # whatever a broken file makes the libraries raise
        if told := attention_fault(error, hardware.attn_implementation()):
            raise ParamsError(told) from None
        reason = directory.library_fault(error) or explain(error, name, revision, "model", instead)
        said = one_line(error).removesuffix(".")
        raise ParamsError(f"{fault}: {reason or f'{said} ({type(error).__name__}); {wanted}'}") from None


def attention_fault(error: Exception, named: str | None) -> str | None:
    """What to say where loading failed for the attention that `compute.attn_implementation` names: the architecture has
    none of that kind, or its package is missing. None where it failed for something else."""
    said = one_line(error).partition(". ")[0].rstrip(".")
    if named is None or not isinstance(error, ValueError | ImportError) or "attention" not in said.lower():
        return None
    return f"params.yaml: compute.attn_implementation: {named}: {said}; set it to auto"


def fetch_causal(name: str, revision: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model on the CPU, and its tokenizer, from a directory or the hub; to be called in `explaining`.

    An `Unfit` where weights are missing or not finite, or where the tokenizer is not the model's.
    """
    tokenizer = fetch_tokenizer(name, revision)
    fetch_config(name, revision, AutoModelForCausalLM)
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with only_errors():
        model, info = fetch(AutoModelForCausalLM, name, revision, **options, **init_kwargs())
    if told := directory.weights_fault(info) or nonfinite_fault(model):
        raise Unfit(told)
    check_tokenizer(tokenizer, model)
    return model, tokenizer


def _check_no_adapters(name: str, revision: str | None) -> None:
    """An `Unfit` where a repository of the hub holds adapters: transformers would load the model that they name, of
    whatever revision, and writes the adapters alone."""
    if patiently(lambda: find_adapter_config_file(name, revision=revision)) is not None:
        raise Unfit(
            "it holds adapters to another model (adapter_config.json); merge them into that (peft's merge_and_unload), "
            "and name the directory that save_pretrained() writes"
        )


def check_directory(path: str | Path) -> None:
    """An `Unfit` where the files of a model's directory show that it cannot be loaded."""
    if told := directory.fault(path):
        raise Unfit(told)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """An `Unfit` where the tokenizer knows no words, or is another model's."""
    if told := directory.tokenizer_fault(tokenizer, model.get_input_embeddings().num_embeddings):
        raise Unfit(told)


@torch.no_grad()
def nonfinite(model: torch.nn.Module) -> str | None:
    """The name of a weight that is not finite throughout; None where all are. The device is waited for once."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.is_floating_point()}
    are_finite = torch.stack([weight.isfinite().all() for weight in weights.values()]).tolist()
    return next((name for name, finite in zip(weights, are_finite, strict=True) if not finite), None)


def nonfinite_fault(model: torch.nn.Module) -> str | None:
    """What to say of a model that was handed over with a weight that is not finite; None where all are."""
    name = nonfinite(model)
    return name and f"{name} holds NaN or infinity; name a model whose training went well"


@contextmanager
def only_errors() -> Iterator[None]:
    """A context in which transformers prints no warnings, such as its table of missing weights: whoever calls looks at
    what they are of."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a directory."""
    return fetch_tokenizer(path)


def load_policy(
    path: str | Path, dtype: torch.dtype = torch.float32, tables: bool = True, **quantization: Any
) -> PreTrainedModel:
    """A causal language model in eval mode on the device, that runs as `run_fast` makes it.

    dtype, tables: how `frozen.hold` holds one that no gradient reaches; it is to be called in `frozen.autocast`.
    `quantization`: `quantization()` of `rlhf_lib.training`, which says how weights are rounded and where they are put.
    """
    try:
        model = AutoModelForCausalLM.from_pretrained(path, **init_kwargs(), **quantization)
    except (ValueError, ImportError) as error:
        if told := attention_fault(error, hardware.attn_implementation()):
            raise ParamsError(told) from None
        raise
    if not quantization:
        frozen.hold(model, dtype, tables)
        model = model.to(hardware.device())
    run_fast(model)
    return model.eval()


def run_fast(model: PreTrainedModel) -> None:
    """Let a model take rows without padding between them, where that is proven, and compute the same function in fewer
    steps.

    The proof is in its contract; a model without one is tried. Where `compute.attn_implementation` names an attention,
    the model keeps that, and rows are padded.
    """
    if hardware.attn_implementation() is None:
        known = contract.of(model)
        if prove_packing(model).packs if known is None else known.packs:
            model.set_attn_implementation(attention.IMPLEMENTATION)
    fuse_gelu(model)
    hardware.share_out(model.config.get_text_config().hidden_size)


def fuse_gelu(model: PreTrainedModel) -> None:
    """Compute `gelu_new` as one kernel instead of eight."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                # the same function [arXiv:1606.08415, section 2]
                setattr(module, name, ACT2FN["gelu_pytorch_tanh"])


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str | Path) -> None:
    """Write weights, config and tokenizer, and only files whose bytes depend on nothing else; and the contract of the
    directory that the model was loaded from, where it has one."""
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    config_file = Path(path) / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    stable = {key: value for key, value in config.items() if key not in _UNSTABLE_TOKENIZER_KEYS}
    if getattr(tokenizer, "legacy", False):  # a Llama's, with a space behind each special token; it isn't written
        stable["legacy"] = True
    config_file.write_text(json.dumps(stable, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if (known := contract.of(model)) is not None:
        known.write(path)


def context_length(model: PreTrainedModel) -> int | None:
    """The most tokens (prompt and response together) that the model can attend to, where its config says so."""
    return context_of(model.config)


def context_of(config: Any) -> int | None:
    """`context_length` of a model of this config.

    LongRoPE [arXiv:2402.13753] has other frequencies for all rows of a batch as soon as one of them is longer than what
    the model first read: what is said of a row would depend on its neighbours, so that this is the context.
    """
    text = config.get_text_config()
    most, rope = getattr(text, "max_position_embeddings", None), getattr(text, "rope_parameters", None) or {}
    return rope["original_max_position_embeddings"] if rope.get("rope_type") == "longrope" else most


def check_length(param: str, value: int, model: PreTrainedModel) -> None:
    """A `ParamsError` when a length in tokens passes what the model can attend to."""
    limit = context_length(model)
    if limit is not None and value > limit:
        raise ParamsError(
            f"params.yaml: {param}: {value} tokens, but the model attends to {limit}; set it to at most {limit}"
        )
