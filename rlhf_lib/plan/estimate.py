"""What each stage that trains will need: parameters, memory by part, tokens and FLOPs, from params and data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from rlhf_lib.common import paths
from rlhf_lib.data.lengths import Lengths
from rlhf_lib.models import hardware
from rlhf_lib.plan import memory, shapes, speed
from rlhf_lib.plan.data import VALIDATION, data_of, rows_in, validation_tokens
from rlhf_lib.plan.memory import Parts, RolloutSize
from rlhf_lib.scoring.source import parse
from rlhf_lib.training.memory import Compute, ForwardPass, ModelShape, wants_checkpointing

STAGES = ("sft", "reward", "judge", "dpo", "ppo")
PAIRS = ("reward", "judge", "dpo")


@dataclass(frozen=True)
class Planned:
    """What is known of a stage before it runs. `tokens` go through the model in training, `sampled` are decoded.

    `batch`: a forward pass in training, of rows of the mean length; `optimizer_steps` are all, `decoding_steps` those
    of one rollout.
    """

    stage: str
    trained: int
    parameters: int
    parts: Parts
    tokens: float
    sampled: float
    flops: float
    advice: str
    assumed: bool
    batch: ForwardPass
    optimizer_steps: float
    decoding_steps: int = 0


def compute_of(params: Any) -> Compute:
    """How the device computes, as `rlhf_lib/models/hardware.py` decides it."""
    fused = hardware.device().type != "cpu" or params.attn_implementation not in ("auto", "eager")
    return Compute(hardware.number_bytes(), bool(params.gradient_checkpointing), keeps_scores=not fused)


def checkpoints(of: ModelShape, batch: ForwardPass, compute: Compute, chosen: bool | None) -> Compute:
    """How a stage computes that decides on `compute.gradient_checkpointing` itself where the params do not, as
    `training.trainer.set_checkpointing` does on a GPU."""
    if chosen is not None or hardware.device().type != "cuda":
        return compute
    return dataclasses.replace(
        compute, checkpointing=wants_checkpointing(of, batch, compute, torch.cuda.mem_get_info()[1])
    )


def plan_trainer(stage: str, sections: Mapping[str, Any], base: Any, compute: Compute, length: Lengths) -> Planned:
    """sft, reward, judge or dpo."""
    params = sections[stage]
    config = base
    if stage in ("reward", "judge"):
        config = shapes.source_config(params.source, base, f"{stage}.model_name_or_path")
    of = shapes.shape(stage, config, "policy" if stage in ("sft", "dpo") else "reward", params)
    max_length = sections["reference"].max_length if stage == "dpo" else params.max_length
    data = data_of(stage, max_length, length, longest_row(sections["prepare"]))
    sides = 2 if stage in PAIRS else 1
    rows = params.per_device_train_batch_size * sides
    fullest = ForwardPass(rows, max_length, rows * max_length)
    compute = checkpoints(of, fullest, compute, sections["compute"].gradient_checkpointing)
    batch = ForwardPass(rows, data.longest, rows * data.longest // 2)
    accumulation = params.gradient_accumulation_steps
    parts = memory.training_peak(of, batch, compute, accumulation, _bits(params))
    step_rows = params.per_device_train_batch_size * accumulation
    steps = params.max_steps if params.max_steps > 0 else data.rows * params.num_train_epochs / step_rows
    seen = steps * step_rows
    tokens = seen * sides * data.mean
    flops = speed.training_flops(of, tokens, tokens / 2, data.mean, compute)
    validated = (steps // params.eval_steps) * rows_in(VALIDATION[stage]) * sides * data.mean
    flops += speed.forward_flops(of, validated, validated / 2, data.mean)
    mean = max(8, round(data.mean))
    typical = ForwardPass(rows, mean, rows * mean // 2)
    advice = advise(stage, params, compute, batch.rows > sides)
    return Planned(stage, of.trained, of.parameters, parts, tokens, 0, flops, advice, data.assumed, typical, steps)


def longest_row(prepare: Any) -> int | None:
    """The most tokens of prompt and answer that stage prepare lets through; None where it does not bound them."""
    bounds = prepare.max_prompt_tokens, prepare.max_response_tokens
    return sum(bounds) if None not in bounds else None


def plan_ppo(sections: Mapping[str, Any], base: Any, compute: Compute, length: Lengths) -> Planned:
    """ppo, with all the models that it holds; responses are taken to fill `response_length`."""
    params = sections["ppo"]
    reward = shapes.source_config(sections["reward"].source, base, "reward.model_name_or_path")
    policy = shapes.shape("ppo", base, "policy", params)
    critic = None if params.critic == "shared" else shapes.shape("ppo", reward, "trunk", critic_params(params))
    frozen = [] if params.lora_r else [shapes.shape("ppo", base, "policy", None)]
    for source in map(parse, params.reward_funcs):
        if source.kind != "function":
            own = source.kind == "directory" and source.location == paths.REWARD
            config = reward if own else shapes.source_config(source, base, "ppo.reward_funcs")
            frozen.append(shapes.shape("ppo", config, "reward", None))
    context = getattr(base, "max_position_embeddings", None) or sections["sft"].max_length
    room = max(8, context - params.response_length)
    assumed = sections["prepare"].max_prompt_tokens or max(8, sections["sft"].max_length - params.response_length)
    data = data_of("ppo", room, length, assumed)
    batch, rollout = ppo_batch(params, data.longest)
    compute = checkpoints(policy, batch, compute, sections["compute"].gradient_checkpointing)
    micro = params.minibatch_size // params.per_device_train_batch_size
    parts = memory.ppo_peak(policy, critic, frozen, batch, rollout, compute, micro, _bits(params))
    responses = params.total_rollouts * params.rollout_batch_size
    rolled_out = responses * params.response_length
    sampled = rolled_out + validation_tokens(params)
    width = data.mean + params.response_length
    tokens = responses * width
    learning = speed.training_flops(policy, tokens, rolled_out, width, compute)
    learning += speed.training_flops(critic, tokens, 0, width, compute) if critic else 0
    models = (policy, *([critic] if critic else []), *frozen)
    # once more forwards, of all models, for log-probs, values and rewards
    scoring = sum(speed.forward_flops(model, tokens, rolled_out, width) for model in models)
    flops = learning * params.num_ppo_epochs + scoring + speed.forward_flops(policy, tokens, rolled_out, width)
    trained = policy.trained + (critic.trained if critic else 0)
    everything = sum(model.parameters for model in models)
    advice = advise("ppo", params, compute, params.per_device_train_batch_size > 1, samples=parts.cache > 0)
    return Planned(
        "ppo",
        trained,
        everything,
        parts,
        tokens * params.num_ppo_epochs,
        sampled,
        flops,
        advice,
        data.assumed,
        ppo_batch(params, max(8, round(data.mean)))[0],
        params.total_rollouts * params.steps_per_rollout,
        params.response_length,
    )


def critic_params(params: Any) -> Any:
    """What of a critic of its own is trained: all of it, or adapters."""
    return (
        params
        if params.critic == "lora"
        else dataclasses.replace(params, lora_r=None, freeze=[], load_in_8bit=False, load_in_4bit=False)
    )


def ppo_batch(params: Any, prompt: int) -> tuple[ForwardPass, RolloutSize]:
    """A forward pass and the rows that are sampled at once, with prompts of so many tokens."""
    rows, response = params.per_device_train_batch_size, params.response_length
    return (
        ForwardPass(rows, prompt + response, rows * response),
        RolloutSize(params.rollout_batch_size, prompt, response),
    )


def _bits(params: Any) -> int | None:
    return 4 if params.load_in_4bit else 8 if params.load_in_8bit else None


def advise(stage: str, params: Any, compute: Compute, has_rows: bool, samples: bool = False) -> str:
    """What to change where the stage does not fit, the cheapest first; `samples`: it is sampling that takes most."""
    ways = []
    if samples:
        ways.append("a smaller ppo.rollout_batch_size, whose responses are sampled at once, or ppo.response_length")
    elif has_rows:
        more = "" if stage == "ppo" else f" with {stage}.gradient_accumulation_steps raised by as much"
        ways.append(f"a smaller {stage}.per_device_train_batch_size{more}")
    if not compute.checkpointing:
        ways.append("compute.gradient_checkpointing: true")
    if stage == "ppo" and params.critic == "separate":
        ways.append("ppo.critic: shared")
    if params.lora_r is None:
        ways.append(f"{stage}.lora_r: 16")
    if hardware.device().type == "cuda" and not params.is_quantized:
        ways.append(f"{stage}.load_in_4bit: true")
    return ", ".join(ways) or "a smaller model"


def plans(sections: Mapping[str, Any], length: Lengths) -> list[Planned]:
    """The plan of every stage that trains, libraries not counted; a `ParamsError` for what is not at hand."""
    compute, base = compute_of(sections["compute"]), shapes.base_config(sections["base"])
    trainers = [plan_trainer(stage, sections, base, compute, length) for stage in STAGES if stage != "ppo"]
    return [*trainers, plan_ppo(sections, base, compute, length)]
