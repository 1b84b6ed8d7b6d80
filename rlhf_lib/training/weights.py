"""Which of a model's weights are trained: all, adapters, or all but some parts; and the plain model that is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, cast

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

from rlhf_lib.common.yaml import ParamsError
from rlhf_lib.models import frozen, hardware
from rlhf_lib.models import loading as models
from rlhf_lib.models.layers import base_model, blocks
from rlhf_lib.models.lengths import say
from rlhf_lib.models.loading import nonfinite
from rlhf_lib.training import adapters, guard
from rlhf_lib.training.params import PART, WeightsParams

Model: TypeAlias = PreTrainedModel | PeftModel
Task = Literal["CAUSAL_LM", "SEQ_CLS", "FEATURE_EXTRACTION"]

ADAPTER = "adapter"  # the folder, in that of the exported model, of the adapters that were merged into it

_PART_NAMES = {
    "attention": ("attn", "attention", "self_attention"),
    "mlp": ("mlp", "feed_forward", "ffn"),
}


class Counts(NamedTuple):
    """Parameters of a model: all, and those that are trained."""

    all: int
    trained: int


def counts(model: nn.Module) -> Counts:
    """How many parameters a model has; those that share their weights count once, those in 4 bits one by one. Of a head
    that is trained beside adapters, PEFT keeps the first one too, which counts for nothing."""
    named = (entry for entry in model.named_parameters() if ".original_module." not in entry[0])
    sizes = [(_size(weight), weight.requires_grad) for _, weight in named]
    return Counts(sum(size for size, _ in sizes), sum(size for size, is_trained in sizes if is_trained))


def _size(weight: Tensor) -> int:
    if type(weight).__name__ != "Params4bit":
        return weight.numel()
    # bitsandbytes packs two into a byte, and bytes into what `quant_storage` names
    return 2 * weight.numel() * weight.element_size()


# Adapters


def lora_config(params: WeightsParams, model: PreTrainedModel, task: Task) -> LoraConfig | None:
    """LoRA as the params say [arXiv:2106.09685]; None where they name no rank. A classifier's head is trained whole."""
    if params.lora_r is None:
        return None
    return LoraConfig(
        r=params.lora_r,
        lora_alpha=params.lora_alpha,
        **adapters.targets(params.lora_target_modules, model),
        # PPO has none: it would make another policy of the one that sampled
        lora_dropout=getattr(params, "lora_dropout", 0.0),
        # GPT-2's Conv1D layers hold the weights transposed
        fan_in_fan_out=getattr(model.config, "model_type", "") == "gpt2",
        task_type=task,
    )


@contextmanager
def telling_of_lora(section: str, config: LoraConfig | None) -> Iterator[None]:
    """Turn what PEFT says against the target modules into a `ParamsError`."""
    try:
        yield
    except ValueError as error:
        named = sorted(config.target_modules) if config and isinstance(config.target_modules, set) else None
        told = " ".join(str(error).split())[:200]
        raise ParamsError(f"params.yaml: {section}.lora_target_modules: {named}: {told}") from None


def with_lora(section: str, model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """The model with adapters that change nothing yet, all else frozen; a `ParamsError` when it cannot have them."""
    adapters.check_targets(section, model, config)
    with telling_of_lora(section, config):
        return get_peft_model(model, config)


def choose(section: str, model: PreTrainedModel, params: WeightsParams, task: Task) -> Model:
    """The model with what the params train left trainable: adapters, or all but what `freeze` names.

    A `ParamsError` where the model has no such part, or nothing is left to train.
    """
    config = lora_config(params, model, task)
    if config is not None:
        return with_lora(section, model, config)
    freeze(section, model, params.freeze)
    return model


def hold_frozen(model: Model, tables: bool = True) -> None:
    """Hold what the model does not train as `compute.frozen_dtype` says: to be called once that is chosen, of a model
    that runs under autocast. `save` writes it as it was.

    tables: embeddings under adapters too; not where the model is compared with one that has its own in fp32. Of weights
    that FSDP will collect, nothing: they would be collected as they are held.
    """
    dtype, under_adapters = hardware.frozen_dtype(), isinstance(model, PeftModel)
    if not hardware.shards():
        frozen.hold(model, dtype, tables and under_adapters, untrained_only=True)
    elif dtype == torch.bfloat16 and not all(weight.requires_grad for weight in model.parameters()):
        say("compute.frozen_dtype: of a model that FSDP shards, what is not trained stays in fp32")


# Freezing


def freeze(section: str, model: PreTrainedModel, parts: list[str]) -> None:
    """Freeze the named parts: `embeddings` (with a tied output layer), `norms`, `attention`, `mlp`, each also in some
    layers only (`mlp:1-10`), whole layers (`0-5`), `outer_norms` (outside the layers) or the `head`."""
    for part in parts:
        modules = list(_modules(section, model, part))
        if not modules:
            raise ParamsError(f"params.yaml: {section}.freeze: {part}: this model has no such part; leave it out")
        for module in modules:
            module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ParamsError(f"params.yaml: {section}.freeze: nothing is left to train; name fewer parts")


def _modules(section: str, model: PreTrainedModel, part: str) -> Iterator[nn.Module]:
    if part == "embeddings":
        yield from (module for module in model.modules() if isinstance(module, nn.Embedding))
    elif part == "norms":
        yield from _norms(model)
    elif part == "outer_norms":
        in_layers = set(_norms(blocks(model)))
        yield from (module for module in _norms(model) if module not in in_layers)
    elif part == "head":
        yield from _head(model)
    elif part in _PART_NAMES:
        yield from _of_kind(part, blocks(model))
    else:
        numbers = PART.fullmatch(part)
        assert numbers is not None
        first, last = int(numbers[2]), int(numbers[3] or numbers[2])
        found = blocks(model)
        if last >= len(found) or first > last:
            raise ParamsError(
                f"params.yaml: {section}.freeze: {part}: the model has layers 0 to {len(found) - 1}; name some of them"
            )
        layers = list(found)[first : last + 1]
        yield from layers if numbers[1] is None else _of_kind(numbers[1], layers)


def _of_kind(kind: str, layers: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """The layers' norms, attention or MLPs."""
    for layer in layers:
        if kind == "norms":
            yield from _norms(layer)
        else:
            names = (*_PART_NAMES[kind], *(f"self_{name}" for name in _PART_NAMES[kind]))
            yield from (child for name, child in layer.named_children() if name in names)


def _norms(module: nn.Module) -> Iterator[nn.Module]:
    return (part for part in module.modules() if "norm" in type(part).__name__.lower())


def _head(model: PreTrainedModel) -> Iterator[nn.Module]:
    """What stands on the trunk: the output layer, or a reward model's score and what leads to it."""
    trunk = model.base_model
    inner = set(trunk.modules()) if trunk is not model else set()
    for child in model.children():
        if child not in inner and any(True for _ in child.parameters()):
            yield child


# Export


def export(
    trainer: Trainer,
    section: str,
    params: WeightsParams,
    task: Task,
    path: str | Path,
    load: Callable[[], PreTrainedModel],
    part: str = "",
) -> PreTrainedModel | None:
    """Write the trained model as a plain one to `path`, by the main process, and give it; None in the others.

    `load` gives the model that the training began with, in whole numbers of bits: on it, shards and adapters of held or
    quantised weights are put together, on the CPU, for beside what was trained a GPU may have no room for it. `part`:
    the model's name in what was trained, where that holds others too. Every process must call this.
    """
    accelerator, load = trainer.accelerator, hardware.on_cpu()(load)
    model = accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).get_submodule(part)
    if trainer.is_fsdp_enabled:
        state = accelerator.get_state_dict(trainer.model_wrapped)
        if accelerator.is_main_process:
            prefix = f"{part}." if part else ""
            state = {name.removeprefix(prefix): weight for name, weight in state.items() if name.startswith(prefix)}
            model = restored(choose(section, load(), params, task), state)
    return save(section, model, trainer.processing_class, path, load) if accelerator.is_main_process else None


def restored(model: Model, state: dict[str, Tensor]) -> Model:
    """The model with the weights of `state`, which names all of them, or one of each that are tied."""
    odd = model.load_state_dict(state, strict=False)
    tied = tuple(base_model(model).all_tied_weights_keys or ())
    absent = [key for key in odd.missing_keys if not (tied and key.endswith(tied))]
    if odd.unexpected_keys or absent:
        raise RuntimeError(f"the collected weights are not the model's: {[*odd.unexpected_keys, *absent][:3]}")
    return model


def save(
    section: str,
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    path: str | Path,
    load: Callable[[], PreTrainedModel],
) -> PreTrainedModel:
    """Write a model without adapters, and those that it had in a folder in that of the model; give what was written.

    Adapters are added to the weights in place; those of weights of 16 bits or less, to the weights that `load` gives,
    which also take the place of frozen ones. A `ParamsError`, and nothing written, where weights are not finite, or
    where what was written is not the trained model.
    """
    if name := nonfinite(model):
        raise guard.Diverged(section, f"{name} holds NaN or infinity")
    is_held = frozen.is_held(model)
    if not isinstance(model, PeftModel):
        if is_held:
            frozen.restore(model, load())
        models.save(model, tokenizer, path)
        return model
    save_adapter(model, Path(path) / ADAPTER)
    if is_held or getattr(base_model(model), "is_quantized", False):
        adapted = get_peft_model(load(), model.peft_config["default"])
        set_peft_model_state_dict(adapted, get_peft_model_state_dict(model))
        model = adapted
    expected = adapters.some_logits(model, base_model(model))
    merged = cast(PreTrainedModel, model.merge_and_unload())
    models.save(merged, tokenizer, path)
    if told := adapters.merged_fault(merged, Path(path), expected):
        shutil.rmtree(path)
        raise ParamsError(
            f"params.yaml: {section}.lora_target_modules: the model with its adapters merged is not the trained one: "
            f"{told}; no model was written; name other layers, or null for those that peft takes for this architecture"
        )
    return merged


def save_adapter(model: PeftModel, path: Path) -> None:
    """Write the adapters as peft reads them, and only files whose bytes depend on nothing else."""
    model.save_pretrained(str(path))
    (path / "README.md").unlink(missing_ok=True)
    config_file = path / "adapter_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    # peft writes sets in an order that differs from run to run
    stable = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
    config_file.write_text(json.dumps(stable, indent=2, sort_keys=True) + "\n", encoding="utf-8")
