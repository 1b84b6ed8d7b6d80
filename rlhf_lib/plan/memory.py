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
to be. `training_peak`, `sampling_peak` and `reading` say what is held at the high points of a stage's phases
(`phases.py`): updates, sampling, and forward passes without gradients.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_lib.training.memory import (
    FP32,
    Compute,
    ForwardPass,
    ModelShape,
    activation_bytes,
    chunk,
    copies_keys,
    logits_bytes,
)

MIB = 2**20
MOMENTS = 2 * FP32  # of AdamW, a trained parameter
# Measured on a CPU with AVX-512 (benchmarks/README.md)
LIBRARIES = 450 * MIB  # a process after a stage's imports
HEAP = 1.2  # memory of activations over their bytes: freed pieces below 32 MiB stay with glibc, and leave holes
KERNELS = 3.4 * MIB  # oneDNN's compiled kernels, a decoding step: every step has a width of its own
MOST_KERNELS = 128 * MIB  # it keeps 32 of them (`common/environment.py`)


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
    """2 b K a token and layer: keys and values of rows with room for `width` tokens, prompt and response.

    Layers with a sliding window keep no more tokens than it has, in 4 bytes. One layer more is there while rows that
    have ended leave the cache.
    """
    of_token = 2 * rows * of.kv_heads * of.head_size
    layers = [
        compute.value * width if window is None else FP32 * min(window, width)
        for window in of.windows or (None,) * of.layers
    ]
    return of_token * (sum(layers) + max(layers, default=0))


def sampling_bytes(of: ModelShape, rollout: RolloutSize) -> int:
    """4 times 4 V a row: one step's logits, their copy in fp32, probabilities, and the sums of these; twice as
    much where they are sorted, for the places that they had, in 8 bytes, and once more as they are kept."""
    return (8 if rollout.sorts else 4) * FP32 * rollout.rows * of.vocab


def forward_bytes(of: ModelShape, batch: ForwardPass, compute: Compute, prefill: bool = False) -> float:
    """What a forward pass without gradients holds at most: that of a layer, or of the logits.

    A token's part of a layer, D wide: its input, the norm of that and a sum, 3 D in 4 bytes; and either queries, keys
    and values, twice (as rows, and in the layout of the products), copies of keys and values for all heads where a
    fused kernel wants them, outputs and, but for fused kernels, scores of a block of queries and their softmax; or what
    goes into the MLP's activation and comes out of it. `prefill`: the pass that fills a cache, whose rows are padded,
    and whose scores are not in blocks.
    """
    from rlhf_lib.models.packing import BLOCK, ONE_BLOCK

    queries, keys = of.heads * of.head_size, of.kv_heads * of.head_size
    block = batch.width if prefill or batch.width <= ONE_BLOCK else BLOCK
    scores = of.heads * block * (3 if prefill else 2) if compute.keeps_scores else 0
    copies = 2 * queries if copies_keys(of, compute, masked=prefill) else 0
    attention = 2 * (queries + 2 * keys) + queries + scores + copies
    mlp = of.inner * (3 if of.gated else 2)
    layer = batch.tokens * (3 * FP32 * of.hidden + compute.value * max(attention, mlp))
    return max(layer, batch.tokens * FP32 * of.hidden + _logits_seen(of, batch, compute))


def _logits_seen(of: ModelShape, batch: ForwardPass, compute: Compute) -> int:
    """The labelled tokens' logits; of a chunk also a copy in 4 bytes, and its exponentials."""
    if not of.has_logits:
        return 0
    logits = batch.labelled * of.vocab
    return chunk(logits) * (compute.value + 2 * FP32) if compute.few_calls else logits * compute.value


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


def kept(of: ModelShape, compute: Compute) -> Parts:
    """Freed blocks that a training on a CPU keeps and that nothing fits into (`models/heap.py`): about as many bytes as
    the largest matrix has, the tokens' embedding; none with checkpointing, which gives them back."""
    keeps = not (compute.checkpointing or compute.few_calls)
    return Parts(activations=FP32 * of.embeddings if keeps else 0)


def training_peak(
    of: ModelShape, batch: ForwardPass, compute: Compute, micro_batches: int = 1, quantized_bits: int | None = None
) -> Parts:
    """The peak of sft, reward, judge and dpo, less the libraries."""
    return added(held(of, quantized_bits), kept(of, compute), update_parts([of], batch, compute, micro_batches))


def reading(of: ModelShape, batch: ForwardPass, compute: Compute) -> Parts:
    """What a forward pass without gradients adds to the weights."""
    return Parts(weights=copies_bytes(of, compute), activations=forward_bytes(of, batch, compute))


@dataclass(frozen=True)
class RolloutSize:
    """What is sampled at once: so many rows, with prompts and responses of so many tokens.

    sorts: of each token the whole vocabulary is sorted, as top_p asks for by itself.
    """

    rows: int
    prompt: int
    response: int
    sorts: bool = False

    @property
    def whole(self) -> ForwardPass:
        """The forward pass that measures the responses."""
        return ForwardPass(self.rows, self.prompt + self.response, self.rows * self.response)


def sampling_peak(of: ModelShape, rollout: RolloutSize, compute: Compute) -> Parts:
    """What sampling adds to the weights: cache, one step's logits, autocast's copies of the matrices, and the forward
    pass of the prompts."""
    width = rollout.prompt + rollout.response
    prompts = ForwardPass(rollout.rows, rollout.prompt, rollout.rows)
    cache = cache_bytes(of, rollout.rows, width, compute)
    activations = max(forward_bytes(of, prompts, compute, prefill=True), sampling_bytes(of, rollout))
    return Parts(weights=copies_bytes(of, compute), activations=activations, cache=cache)


def ppo_holds(
    policy: ModelShape, critic: ModelShape | None, frozen: Sequence[ModelShape], quantized_bits: int | None = None
) -> Parts:
    """What PPO holds all the time, less the libraries.

    critic: the critic's own trunk, if it has one. frozen: the reference (none with LoRA, whose reference is the policy
    without its adapter) and the reward models.
    """
    others = [Parts(weights=weight_bytes(model)) for model in frozen]
    return added(held(policy, quantized_bits), *others, held(critic) if critic else Parts())


def in_process(parts: Parts, device: str, steps: int = 0) -> Parts:
    """The parts with what the process holds besides: on a CPU the libraries, the heap's holes, and the kernels of so
    many decoding steps; on a GPU about 500 MiB of context."""
    if device != "cpu":
        return dataclasses.replace(parts, libraries=500 * MIB)
    libraries = LIBRARIES + min(KERNELS * steps, MOST_KERNELS)
    return dataclasses.replace(parts, libraries=libraries, activations=parts.activations * HEAP)
