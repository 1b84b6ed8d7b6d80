"""FLOPs of a stage, and the speed of this machine from a short measurement.

FLOPs of a token: a weight of a matrix takes 2 forwards, 2 more for the gradient of what goes in, and 2 for its own
gradient where it is trained [arXiv:2001.08361, section 2.1]; attention in rows of W tokens 4 W Q forwards in each
layer, with queries of Q numbers in all heads, and twice that backwards.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rlhf_lib.check.sections import SECTIONS
from rlhf_lib.common.schema import check
from rlhf_lib.models import hardware
from rlhf_lib.models import loading as models
from rlhf_lib.models.forward import Steps
from rlhf_lib.models.logprobs import Response, collate, response_logprobs
from rlhf_lib.models.proof import takes_cache
from rlhf_lib.plan import memory, shapes
from rlhf_lib.training.memory import Compute, ForwardPass, ModelShape

SECONDS = 3.0  # of each measurement, less its first step
TIMED = 20  # steps of a measurement at most
# Measured on a server CPU (benchmarks/README.md)
STARTUP = 4.0  # seconds, of a stage that trains
TRAINER = 0.02  # seconds, that Trainer and TRL take for an optimizer step beside the model's passes


def forward_flops(of: ModelShape, tokens: float, labelled: float, width: float) -> float:
    """2 M a token, 2 V D a token with logits, and attention's 4 W Q in each layer."""
    head = 2 * of.vocab * of.hidden * labelled if of.has_logits else 0
    return 2 * of.trunk_matrices * tokens + head + 4 * width * of.heads * of.head_size * of.layers * tokens


def training_flops(of: ModelShape, tokens: float, labelled: float, width: float, compute: Compute) -> float:
    """Forwards and backwards: 3 times the former where all is trained, less 2 M a token where the matrices are frozen;
    once more forwards where activations are computed again."""
    forward = forward_flops(of, tokens, labelled, width)
    frozen = 1 - of.trained / of.parameters
    own = 2 * of.trunk_matrices * tokens * frozen
    return forward * (4 if compute.checkpointing else 3) - own


@dataclass(frozen=True)
class Rates:
    """What this device does in a second: FLOPs of each stage's training, and tokens of sampling."""

    flops: Mapping[str, float]
    sampled: float

    def seconds(self, stage: str, flops: float, sampled: float, steps: float) -> float | None:
        """How long a stage takes of so many FLOPs, tokens that are sampled, and optimizer steps, if that is known."""
        if stage not in self.flops:
            return None
        return STARTUP + flops / self.flops[stage] + sampled / self.sampled + TRAINER * steps


NO_RATES = Rates({}, 0.0)


def measure(params: Mapping[str, Any], free: float, batches: Mapping[str, ForwardPass]) -> Rates:
    """Rates of the base model's shape at random weights, in the stages' batches and PPO's rollouts.

    None of a stage whose batch would not fit into `free` bytes, and none at all where weights are quantised. Where one
    pass takes longer than `SECONDS`, the arithmetic takes all the time, and the rate is that of the other stages too.
    """
    sft, ppo = params["sft"], params["ppo"]
    if sft["load_in_4bit"] or sft["load_in_8bit"]:
        return NO_RATES
    config = shapes.base_config(check(SECTIONS["base"], params["base"], "base"))
    of = shapes.shape("sft", config, "policy", check(SECTIONS["sft"], {**sft, "lora_r": None}, "sft"))
    compute = Compute(hardware.number_bytes())

    def fits(batch: ForwardPass) -> bool:
        return memory.in_process(memory.training_peak(of, batch, compute), hardware.device().type).total <= free

    context = models.context_of(config) or max(batch.width for batch in batches.values())
    batches = {stage: replace(batch, width=min(batch.width, context)) for stage, batch in batches.items()}
    measured = {stage: batch for stage, batch in batches.items() if fits(batch)}
    if not measured:
        return NO_RATES
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    models.run_fast(model.to(hardware.device()))
    rates: dict[str, float] = {}
    rate, seconds = 0.0, 0.0
    for stage, batch in measured.items():
        if seconds <= SECONDS:
            rate, seconds = _training_rate(model, of, batch, compute)
        rates[stage] = rate
    prompt = max(1, min(batches["ppo"].width - ppo["response_length"], context - TIMED - 1))
    return Rates(rates, _sampling_rate(model, ppo["generation_batch_size"] or ppo["rollout_batch_size"], prompt))


def _training_rate(model: Any, of: ModelShape, batch: ForwardPass, compute: Compute) -> tuple[float, float]:
    """FLOPs per second of forward and backward passes and AdamW's steps, and the seconds of one."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    prompt = batch.width // 2
    answers = [Response([1] * (batch.width - prompt), True)] * batch.rows
    vocabulary = model.get_input_embeddings().num_embeddings
    # each begins with a token of its own: equal prompts would be read once
    prompts = [[row % vocabulary] + [1] * (prompt - 1) for row in range(batch.rows)]
    inputs = collate(model, prompts, answers, 0)

    def step() -> None:
        with hardware.autocast():
            loss = -response_logprobs(model, inputs).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for a GPU

    labelled = batch.rows * (batch.width - prompt)
    seconds = _seconds(step)
    return training_flops(of, batch.tokens, labelled, batch.width, compute) / seconds, seconds


def _sampling_rate(model: Any, rows: int, prompt: int) -> float:
    """Tokens per second of decoding this many rows after prompts of this many tokens."""
    ids, mask = (torch.ones(rows, prompt, dtype=torch.long, device=model.device) for _ in range(2))
    steps = Steps(model.eval(), prompt + TIMED + 1, takes_cache(model))

    def step() -> None:
        nonlocal mask
        mask = torch.cat([mask, mask[:, :1]], dim=1)
        logits = steps(ids[:, :1], mask, mask.sum(dim=1, keepdim=True) - 1)
        logits.float().softmax(-1).cumsum(-1)[0, -1].item()

    with torch.no_grad(), hardware.autocast():
        steps(ids, mask, mask.cumsum(dim=1) - 1)
        return rows / _seconds(step)


def _seconds(step: Any) -> float:
    """Of one step: the mean of those that fit into `SECONDS`, at most `TIMED`, after one that is not counted."""
    start = time.perf_counter()
    step()
    if time.perf_counter() - start > SECONDS:
        return time.perf_counter() - start
    start, steps = time.perf_counter(), 0
    while steps < TIMED and (steps == 0 or time.perf_counter() - start < SECONDS):
        step()
        steps += 1
    return (time.perf_counter() - start) / steps
