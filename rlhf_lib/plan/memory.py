"""How much memory a training stage holds at its peak, from the model's shape and the batch's alone.

All sizes are bytes on one device. What is held at any moment:

    libraries    the process without a model (on a CPU)
    weights      4 a parameter, of every model; 2 where `compute.frozen_dtype` has it held in bf16; half a byte or one
                 where bitsandbytes holds it; in bf16 or fp16 autocast, 2 more a weight of another matrix, for its copy
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

from rlhf_lib.training.memory import FP32, Compute, ForwardPass, ModelShape, activation_bytes, logits_bytes

MIB = 2**20
MOMENTS = 2 * FP32  # of AdamW, a trained parameter
# Measured on a CPU with AVX-512 (benchmarks/README.md)
LIBRARIES = 450 * MIB  # a process after a stage's imports
HEAP = 1.2  # memory of activations over their bytes: freed pieces below 32 MiB stay with glibc, and leave holes
KERNELS = 3.4 * MIB  # oneDNN's compiled kernels, a decoding step: every step has a width of its own


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
        """The sum of all parts."""
        return sum(dataclasses.astuple(self))


def weight_bytes(of: ModelShape, quantized_bits: int | None = None) -> float:
    """4 P, or 2 of what is held in bf16; of quantised weights, bits / 8 a weight of the layers' matrices."""
    if quantized_bits is None:
        return FP32 * of.parameters - 2 * of.held
    return FP32 * (of.parameters - of.trunk_matrices) + of.trunk_matrices * quantized_bits / 8


def copies_bytes(of: ModelShape, compute: Compute) -> int:
    """Autocast's copies of the matrices: 2 M; none in fp32, nor of those that are held in bf16."""
    return compute.value * (of.matrices - of.held_matrices) if compute.autocast else 0


def cache_bytes(of: ModelShape, rows: int, width: int, compute: Compute) -> int:
    """2 b L K a token: keys and values of rows with room for `width` tokens, prompt and response."""
    return 2 * compute.value * of.layers * of.kv_heads * of.head_size * rows * width


def sampling_bytes(of: ModelShape, rows: int, compute: Compute) -> int:
    """4 times 4 V a row: one step's logits, their copy in fp32, probabilities, and the sums of these."""
    return 4 * FP32 * rows * of.vocab


def update_parts(models: Sequence[ModelShape], batch: ForwardPass, compute: Compute, micro_batches: int = 1) -> Parts:
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


def held(of: ModelShape, quantized_bits: int | None = None) -> Parts:
    """What of a model is there all the time: its weights, and the moments of those that are trained."""
    return Parts(weights=weight_bytes(of, quantized_bits), optimizer=MOMENTS * of.trained)


def training_peak(
    of: ModelShape, batch: ForwardPass, compute: Compute, micro_batches: int = 1, quantized_bits: int | None = None
) -> Parts:
    """The peak of sft, reward, judge and dpo, less the libraries."""
    return added(held(of, quantized_bits), update_parts([of], batch, compute, micro_batches))


@dataclass(frozen=True)
class RolloutSize:
    """What PPO samples at once: so many rows, with prompts and responses of so many tokens."""

    rows: int
    prompt: int
    response: int


def sampling_peak(of: ModelShape, rollout: RolloutSize, compute: Compute) -> Parts:
    """What sampling adds to the weights: cache, one step's logits, autocast's copies of the matrices, and the forward
    pass of the prompts, of which one layer's activations live at a time."""
    width = rollout.prompt + rollout.response
    prompts = ForwardPass(rollout.rows, rollout.prompt, rollout.rows)
    one_layer = activation_bytes(dataclasses.replace(of, layers=1), prompts, compute)
    cache = cache_bytes(of, rollout.rows, width, compute)
    activations = max(one_layer, sampling_bytes(of, rollout.rows, compute))
    return Parts(weights=copies_bytes(of, compute), activations=activations, cache=cache)


def ppo_peak(
    policy: ModelShape,
    critic: ModelShape | None,
    frozen: list[ModelShape],
    batch: ForwardPass,
    rollout: RolloutSize,
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


def in_process(parts: Parts, device: str, steps: int = 0) -> Parts:
    """The parts with what the process holds besides: on a CPU the libraries, the heap's holes, and the kernels of so
    many decoding steps; on a GPU about 500 MiB of context."""
    if device != "cpu":
        return dataclasses.replace(parts, libraries=500 * MIB)
    return dataclasses.replace(parts, libraries=LIBRARIES + KERNELS * steps, activations=parts.activations * HEAP)
