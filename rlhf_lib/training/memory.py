"""How much memory a training stage holds at its peak, from the model's shape and the batch's alone.

All sizes are bytes on one device. What is held at any moment:

    libraries    the process without a model (on a CPU)
    weights      4 a parameter, of every model; half a byte or one where bitsandbytes holds it; in bf16 or fp16
                 autocast, 2 more a weight of a matrix, for its copy
    gradients    4 a trained parameter
    optimizer    8 a trained parameter: AdamW's two moments [arXiv:1711.05101]
    activations  what autograd keeps of one forward pass (`activation_bytes`), and of the logits (`logits_bytes`)
    cache        keys and values of the rows that are sampled at once (`cache_bytes`)

The parts do not all reach their greatest size together: activations are freed, layer by layer, while the gradients come
to be. `training_peak` and `sampling_peak` say what is held at the stage's two high points.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from rlhf_lib.training.weights import Model

FP32 = 4
MOMENTS = 2 * FP32  # of AdamW, a trained parameter
MIB = 2**20


@dataclass(frozen=True)
class Shape:
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

    @property
    def trunk_matrices(self) -> int:
        """Weights of linear layers less the output layer's."""
        return self.matrices - self.vocab * self.hidden * self.has_logits


@dataclass(frozen=True)
class Batch:
    """One forward pass: `rows` rows of `width` tokens, of which `labelled` in all have logits."""

    rows: int
    width: int
    labelled: int

    @property
    def tokens(self) -> int:
        return self.rows * self.width


@dataclass(frozen=True)
class Compute:
    """How it is computed. `value`: bytes of a number in matrix products (4, or 2 in bf16 and fp16)."""

    value: int = FP32
    checkpointing: bool = False
    keeps_scores: bool = True  # attention by plain products, as on a CPU; fused kernels keep no scores

    @property
    def autocast(self) -> bool:
        return self.value < FP32


@dataclass(frozen=True)
class Parts:
    """Bytes that are held at one moment, by what they are for."""

    libraries: float = 0.0
    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    cache: float = 0.0

    @property
    def total(self) -> float:
        return sum(dataclasses.astuple(self))


def shape(model: Model) -> Shape:
    """The shape of a model, which may be on the meta device."""
    from torch import nn

    from rlhf_lib.training.weights import base_model, blocks

    plain = base_model(model)
    config = plain.config.get_text_config()
    block = blocks(plain)[0]
    heads, hidden = config.num_attention_heads, config.hidden_size
    inner = getattr(config, "n_inner", None) or getattr(config, "intermediate_size", None) or 4 * hidden
    embedding = plain.get_input_embeddings().weight
    parameters = list(model.parameters())
    has_logits = plain.get_output_embeddings() is not None
    linear = [module for module in plain.modules() if _is_linear(module)]
    matrices = {id(module.weight): module.weight.numel() for module in linear}
    return Shape(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        matrices=sum(matrices.values()),
        embeddings=embedding.numel(),
        embeddings_trained=embedding.requires_grad,
        layers=len(blocks(plain)),
        hidden=hidden,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_size=getattr(config, "head_dim", None) or hidden // heads,
        inner=inner,
        vocab=config.vocab_size,
        gated=any("gate" in name for name, _ in block.named_modules()),
        rms_norm=not any(isinstance(module, nn.LayerNorm) for module in block.modules()),
        saved_inputs=_saved_inputs(block),
        has_logits=has_logits,
    )


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


# ---- parts


def weight_bytes(of: Shape, quantized_bits: int | None = None) -> float:
    """4 P; of quantised weights, bits / 8 a weight of the layers' matrices."""
    if quantized_bits is None:
        return FP32 * of.parameters
    return FP32 * (of.parameters - of.trunk_matrices) + of.trunk_matrices * quantized_bits / 8


def copies_bytes(of: Shape, compute: Compute) -> int:
    """Autocast's copies of the matrices: 2 M; none in fp32."""
    return compute.value * of.matrices if compute.autocast else 0


def keys_multiplied(width: int) -> float:
    """By how many keys a query is multiplied in a row of `width` tokens, on average (`attention.query_spans`)."""
    from rlhf_lib.models.attention import query_spans

    return sum((end - start) * end for start, end in query_spans(width)) / width


def activation_bytes(of: Shape, batch: Batch, compute: Compute) -> float:
    """What autograd keeps of a forward pass through the trunk: n tokens, L layers, D wide.

    A layer keeps, of each token, in numbers of b bytes (2 in autocast, else 4):

        2 D       the inputs of its two norms, in 4 bytes; a norm in plain operations keeps what it normalised too
        I         the inputs of its trained linear layers: `saved_inputs`; 2 D + Q + F where all are trained
        Q + 2 K   queries, keys and values
        H S       attention's weights of the S keys that a query is multiplied by (`keys_multiplied`), where no fused
                  kernel does without them (which keeps its output Q and one number a head instead)
        F         the input of the MLP's activation; 3 F where it is gated: both factors too

    One layer more is counted for the gradients of all these, which are there of one layer at a time. With
    `checkpointing` each layer keeps its input, 4 D, and one layer at a time all of the above, and their gradients.
    """
    queries, keys = of.heads * of.head_size, of.kv_heads * of.head_size
    attention = (
        queries + 2 * keys + (of.heads * keys_multiplied(batch.width) if compute.keeps_scores else queries + of.heads)
    )
    mlp = of.inner * (3 if of.gated else 1)
    layer = FP32 * of.hidden * (4 if of.rms_norm else 2) + compute.value * (of.saved_inputs + attention + mlp)
    if compute.checkpointing:
        return batch.tokens * (of.layers * FP32 * of.hidden + 2 * layer)
    return batch.tokens * (of.layers + 1) * layer


def logits_bytes(of: Shape, batch: Batch, compute: Compute) -> int:
    """n V (4 + b) of n labelled tokens: their probabilities, in 4 bytes, and the logits or their gradient."""
    return batch.labelled * of.vocab * (FP32 + compute.value) if of.has_logits else 0


def cache_bytes(of: Shape, rows: int, width: int, compute: Compute) -> int:
    """2 b L K a token: keys and values of rows with room for `width` tokens, prompt and response."""
    return 2 * compute.value * of.layers * of.kv_heads * of.head_size * rows * width


def sampling_bytes(of: Shape, rows: int, compute: Compute) -> int:
    """4 times 4 V a row: one step's logits, their copy in fp32, probabilities, and the sums of these."""
    return 4 * FP32 * rows * of.vocab


# ---- high points


def update_parts(models: Sequence[Shape], batch: Batch, compute: Compute, micro_batches: int = 1) -> Parts:
    """Gradients, activations and autocast's copies of the models that one loss trains, where a step takes most.

    With one micro-batch, that is either where the backward pass begins (all activations, and the gradient of the output
    layer) or where it ends (all gradients, and once more that of the embeddings, which is added to the output layer's).
    With several, all gradients are there when it begins.
    """
    gradients = FP32 * sum(of.trained for of in models)
    kept = sum(activation_bytes(of, batch, compute) for of in models)
    logits = sum(logits_bytes(of, batch, compute) for of in models)
    copies = sum(copies_bytes(of, compute) for of in models)
    tables = [FP32 * of.embeddings for of in models if of.embeddings_trained]
    of_head = sum(FP32 * of.embeddings for of in models if of.embeddings_trained and of.has_logits)
    if micro_batches > 1:
        # the output layer's gradient is a tensor of its own before it is added
        return Parts(weights=copies, gradients=gradients, activations=kept + max(logits, of_head))
    begins = Parts(weights=copies, gradients=of_head, activations=kept + max(logits - of_head, 0))
    ends = Parts(weights=copies, gradients=gradients + max(tables, default=0))
    return max(begins, ends, key=lambda parts: parts.total)


def added(*parts: Parts) -> Parts:
    """The sum of parts, part by part."""
    return Parts(*(sum(column) for column in zip(*map(dataclasses.astuple, parts), strict=True)))


def held(of: Shape, quantized_bits: int | None = None) -> Parts:
    """What of a model is there all the time: its weights, and the moments of those that are trained."""
    return Parts(weights=weight_bytes(of, quantized_bits), optimizer=MOMENTS * of.trained)


def training_peak(
    of: Shape, batch: Batch, compute: Compute, micro_batches: int = 1, quantized_bits: int | None = None
) -> Parts:
    """The peak of sft, reward, judge and dpo, less the libraries."""
    return added(held(of, quantized_bits), update_parts([of], batch, compute, micro_batches))


@dataclass(frozen=True)
class Rollout:
    """What PPO samples at once: so many rows, with prompts and responses of so many tokens."""

    rows: int
    prompt: int
    response: int


def sampling_peak(of: Shape, rollout: Rollout, compute: Compute) -> Parts:
    """What sampling adds to the weights: cache, one step's logits, autocast's copies of the matrices, and the forward
    pass of the prompts, of which one layer's activations live at a time."""
    width = rollout.prompt + rollout.response
    prompts = Batch(rollout.rows, rollout.prompt, rollout.rows)
    one_layer = activation_bytes(dataclasses.replace(of, layers=1), prompts, compute)
    cache = cache_bytes(of, rollout.rows, width, compute)
    activations = max(one_layer, sampling_bytes(of, rollout.rows, compute))
    return Parts(weights=copies_bytes(of, compute), activations=activations, cache=cache)


def ppo_peak(
    policy: Shape,
    critic: Shape | None,
    frozen: list[Shape],
    batch: Batch,
    rollout: Rollout,
    compute: Compute,
    micro_batches: int = 1,
    quantized_bits: int | None = None,
) -> Parts:
    """The peak of ppo, less the libraries: of sampling, or of an update.

    critic: the critic's own trunk, if it has one. frozen: the reference (none with LoRA, whose reference is the policy
    without its adapter) and the reward models.
    """
    others = [Parts(weights=weight_bytes(model)) for model in frozen]
    always = added(held(policy, quantized_bits), *others, held(critic) if critic else Parts())
    update = update_parts([policy, critic] if critic else [policy], batch, compute, micro_batches)
    sampling = sampling_peak(policy, rollout, compute)
    return added(always, max(update, sampling, key=lambda parts: parts.total))


def wants_checkpointing(of: Shape, batch: Batch, compute: Compute, device_bytes: float) -> bool:
    """Whether the activations of a forward pass would fill more than half of the device's memory."""
    kept = dataclasses.replace(compute, checkpointing=False)
    return activation_bytes(of, batch, kept) + logits_bytes(of, batch, kept) > device_bytes / 2


# Measured on a CPU with AVX-512 (benchmarks/README.md)
LIBRARIES = 450 * MIB  # a process after a stage's imports
HEAP = 1.2  # memory of activations over their bytes: freed pieces below 32 MiB stay with glibc, and leave holes
KERNELS = 3.4 * MIB  # oneDNN's compiled kernels, a decoding step: every step has a width of its own


def in_process(parts: Parts, device: str, steps: int = 0) -> Parts:
    """The parts with what the process holds besides: on a CPU the libraries, the heap's holes, and the kernels of so
    many decoding steps; on a GPU about 500 MiB of context."""
    if device != "cpu":
        return dataclasses.replace(parts, libraries=500 * MIB)
    return dataclasses.replace(parts, libraries=LIBRARIES + KERNELS * steps, activations=parts.activations * HEAP)
