"""How many bytes a forward pass keeps for the backward one, from the model's shape and the batch's alone."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from rlhf_lib.training.weights import Model

FP32 = 4


@dataclass(frozen=True)
class ModelShape:
    """What the sizes depend on of a model whose trained weights are chosen (`weights.choose`)."""

    parameters: int  # all
    trained: int
    matrices: int  # weights of linear layers, the output layer's among them
    embeddings: int  # weights of the tokens' embedding
    embeddings_trained: bool
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int  # width of the MLP
    vocab: int
    gated: bool  # whether the MLP is act(gate(x)) * up(x)
    rms_norm: bool  # whether norms are written out in tensor operations, which keep what they normalised
    saved_inputs: int  # widths of the inputs that one layer's trained linear layers keep, summed
    has_logits: bool  # whether the output layer is the vocabulary's
    held: int = 0  # weights that are held in 16 bits (`rlhf_lib/models/frozen.py`)
    held_matrices: int = 0  # those of them that are in linear layers
    windows: tuple[int | None, ...] = ()  # tokens of which each layer caches keys and values; None: of all

    @property
    def trunk_matrices(self) -> int:
        """Weights of linear layers less the output layer's."""
        return self.matrices - self.vocab * self.hidden * self.has_logits


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass: `rows` rows of `width` tokens, of which `labelled` in all have logits."""

    rows: int
    width: int
    labelled: int

    @property
    def tokens(self) -> int:
        """Of all rows, padding included."""
        return self.rows * self.width


@dataclass(frozen=True)
class Compute:
    """How it is computed. `value`: bytes of a number in matrix products (4, or 2 in bf16 and fp16)."""

    value: int = FP32
    checkpointing: bool = False
    keeps_scores: bool = True  # attention by plain products, as on a CPU; fused kernels keep no scores
    few_calls: bool = False  # `hardware.favours_few_calls`: the logits of a chunk of tokens live at a time

    @property
    def autocast(self) -> bool:
        """Whether products are computed in fewer bits than weights have."""
        return self.value < FP32


def shape(model: Model) -> ModelShape:
    """The shape of a model, which may be on the meta device."""
    from torch import nn

    from rlhf_lib.models.layers import base_model, blocks

    plain = base_model(model)
    config = plain.config.get_text_config()
    block = blocks(plain)[0]
    heads, hidden = getattr(config, "num_attention_heads", 0), config.hidden_size  # state-space models have none
    inner = getattr(config, "n_inner", None) or getattr(config, "intermediate_size", None) or 4 * hidden
    embedding = plain.get_input_embeddings().weight
    parameters = list(model.parameters())
    has_logits = plain.get_output_embeddings() is not None
    linear = [module for module in plain.modules() if _is_linear(module)]
    matrices = {id(module.weight): module.weight.numel() for module in linear}
    in_16_bits = {id(p): p.numel() for p in parameters if p.element_size() == 2}
    return ModelShape(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        matrices=sum(matrices.values()),
        embeddings=embedding.numel(),
        embeddings_trained=embedding.requires_grad,
        layers=len(blocks(plain)),
        hidden=hidden,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_size=getattr(config, "head_dim", None) or hidden // max(heads, 1),
        inner=inner,
        vocab=config.vocab_size,
        gated=any("gate" in name for name, _ in block.named_modules()),
        rms_norm=not any(isinstance(module, nn.LayerNorm) for module in block.modules()),
        saved_inputs=_saved_inputs(block),
        has_logits=has_logits,
        held=sum(in_16_bits.values()),
        held_matrices=sum(matrices[key] for key in matrices.keys() & in_16_bits.keys()),
        windows=_windows(config, len(blocks(plain))),
    )


def _windows(config: Any, layers: int) -> tuple[int | None, ...]:
    """Of each layer's cache the most tokens that it keeps: None for all, 0 where states take the place of tokens."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    kinds = DynamicCache(config=config).layers
    windows = (getattr(kind, "sliding_window", None) if isinstance(kind, DynamicLayer) else 0 for kind in kinds)
    return tuple(windows) or (None,) * layers


def _is_linear(module: nn.Module) -> bool:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _saved_inputs(block: nn.Module) -> int:
    """Inputs that the backward pass needs for the gradients of weights; what several layers read counts once."""
    widths: dict[str, int] = {}
    for name, module in block.named_modules():
        if not _is_linear(module) or not module.weight.requires_grad:
            continue
        width = module.in_features if hasattr(module, "in_features") else module.nx
        # an adapter's first matrix reads what the layer reads; its second the r numbers between them
        owner, _, part = name.partition(".lora_")
        *path, own = owner.split(".")
        shared = "".join(path) + ("qkv" if own in ("q_proj", "k_proj", "v_proj") else own)
        shared = "gate_up" if own in ("gate_proj", "up_proj") else shared
        widths[shared + part[:1]] = width
    return sum(widths.values())


def keys_multiplied(width: int) -> float:
    """By how many keys a query is multiplied in a row of `width` tokens, on average (`packing.query_spans`)."""
    from rlhf_lib.models.packing import query_spans

    return sum((end - start) * end for start, end in query_spans(width)) / width


def activation_bytes(of: ModelShape, batch: ForwardPass, compute: Compute) -> float:
    """What autograd keeps of a forward pass through the trunk: n tokens, L layers, D wide.

    A layer keeps, of each token, in numbers of b bytes (2 in autocast, else 4):

        2 D       the inputs of its two norms, in 4 bytes; a norm in plain operations keeps what it normalised too
        I         the inputs of its trained linear layers: `saved_inputs`; 2 D + Q + F where all are trained
        Q + 2 K   queries, keys and values
        H S       attention's weights of the S keys that a query is multiplied by (`keys_multiplied`), where no fused
                  kernel does without them (which keeps its output Q and one number a head instead)
        F         the input of the MLP's activation; 3 F where it is gated: both factors too

    On a GPU in fp32, whose kernels take no shared keys, K is Q. One layer more is counted for the gradients of all
    these, which are there of one layer at a time. With `checkpointing` each layer keeps its input, 4 D, and one layer
    at a time all of the above, and their gradients.
    """
    queries = of.heads * of.head_size
    keys = queries if copies_keys(of, compute) else of.kv_heads * of.head_size
    attention = (
        queries + 2 * keys + (of.heads * keys_multiplied(batch.width) if compute.keeps_scores else queries + of.heads)
    )
    mlp = of.inner * (3 if of.gated else 1)
    layer = FP32 * of.hidden * (4 if of.rms_norm else 2) + compute.value * (of.saved_inputs + attention + mlp)
    if compute.checkpointing:
        return batch.tokens * (of.layers * FP32 * of.hidden + 2 * layer)
    return batch.tokens * (of.layers + 1) * layer


def copies_keys(of: ModelShape, compute: Compute, masked: bool = False) -> bool:
    """Whether keys and values that several query heads share are copied for each of them: on a GPU, where there is a
    mask, and in fp32 (`models/attention.py`)."""
    return compute.few_calls and of.kv_heads < of.heads and (masked or not compute.autocast)


def logits_bytes(of: ModelShape, batch: ForwardPass, compute: Compute) -> int:
    """n V (4 + b) of n labelled tokens: their probabilities, in 4 bytes, and the logits or their gradient.

    Of a chunk, whose logits are computed again, all of these, and two pieces in 4 bytes that they are worked on in.
    """
    if not of.has_logits:
        return 0
    logits = batch.labelled * of.vocab
    return chunk(logits) * (3 * FP32 + 2 * compute.value) if compute.few_calls else logits * (FP32 + compute.value)


def chunk(logits: int) -> int:
    """How many of so many logits are alive at a time on a GPU (`output_layer.py`)."""
    from rlhf_lib.models.output_layer import CHUNK

    return min(logits, CHUNK)


def wants_checkpointing(of: ModelShape, batch: ForwardPass, compute: Compute, device_bytes: float) -> bool:
    """Whether the activations of a forward pass would fill more than half of the device's memory."""
    kept = dataclasses.replace(compute, checkpointing=False)
    return activation_bytes(of, batch, kept) + logits_bytes(of, batch, kept) > device_bytes / 2
