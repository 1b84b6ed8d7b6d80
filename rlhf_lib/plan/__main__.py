"""What a run will need, before it is started: `python -m rlhf_lib.plan`, or `make plan`.

Of each stage that trains: parameters, memory of one device by part, tokens, FLOPs, and the time on this machine, from
a measurement of about 20 seconds. The memory is that of `rlhf_lib/training/memory.py`, FLOPs and time are those of
`rlhf_lib/plan/speed.py`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lib.check import SECTIONS, check_all
from rlhf_lib.common import environment
from rlhf_lib.common.schema import PARAMS_FILE, check
from rlhf_lib.common.yaml import load_yaml

if TYPE_CHECKING:
    from rlhf_lib.training.memory import Batch, Compute, Parts, Rollout

STAGES = ("sft", "reward", "judge", "dpo", "ppo")
# The first that is there says what a stage learns from.
FILES = {
    "sft": ("data/splits/sft_train.jsonl",),
    "reward": ("data/negatives/reward_train.jsonl", "data/splits/reward_train.jsonl"),
    "judge": ("data/splits/judge_train.jsonl",),
    "dpo": ("data/negatives/preference_train.jsonl", "data/splits/preference_train.jsonl"),
    "ppo": ("data/splits/prompts_train.jsonl",),
}
VALIDATION = {stage: f"data/splits/{stage}_validation.jsonl" for stage in ("sft", "reward", "judge")}
VALIDATION["dpo"] = "data/splits/preference_validation.jsonl"
ASSUMED_ROWS = 1000
CHARACTERS = 4  # to a token, where there is no tokenizer yet
PAIRS = ("reward", "judge", "dpo")
GIB = 2**30


@dataclass(frozen=True)
class Data:
    """Rows of a stage, or pairs; mean tokens of a row, and of the longest ones; `assumed` where there are no files."""

    rows: int
    mean: float
    longest: int
    assumed: bool


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
    batch: Batch
    optimizer_steps: float
    decoding_steps: int = 0


# ---- data


def data_of(stage: str, max_length: int) -> Data:
    """Rows and lengths in tokens, of the stage's file; without one, `ASSUMED_ROWS` rows of `max_length`."""
    from rlhf_lib.common.rows import read_jsonl

    file = next((name for name in FILES[stage] if Path(name).is_file()), None)
    if file is None:
        return Data(ASSUMED_ROWS, max_length, max_length, True)
    lengths = [min(_characters(row) / CHARACTERS, max_length) for row in read_jsonl(file)]
    if not lengths:
        return Data(0, 0.0, max_length, False)
    return Data(len(lengths), statistics.fmean(lengths), max(8, round(max(lengths))), False)


def rows_in(file: str) -> int:
    """Rows of a JSON Lines file; 0 where it is not there."""
    path = Path(file)
    return len(path.read_bytes().splitlines()) if path.is_file() else 0


def _characters(row: Mapping[str, Any]) -> float:
    """Of prompt and answer; of a pair, prompt and the mean of its answers."""

    def size(name: str) -> int:
        return sum(len(message["content"]) for message in row.get(name) or ())

    return size("prompt") + size("completion") + (size("chosen") + size("rejected")) / 2


# ---- stages


def compute_of(params: Any) -> Compute:
    """How the device computes, as `rlhf_lib/models/hardware.py` decides it."""
    from rlhf_lib.models import hardware
    from rlhf_lib.training.memory import Compute

    fused = hardware.device().type != "cpu" or params.attn_implementation not in ("auto", "eager")
    return Compute(hardware.number_bytes(), bool(params.gradient_checkpointing), keeps_scores=not fused)


def plan_trainer(stage: str, sections: Mapping[str, Any], base: Any, compute: Compute) -> Planned:
    """sft, reward, judge or dpo."""
    from rlhf_lib.plan import shapes, speed
    from rlhf_lib.training import memory

    params = sections[stage]
    config = base
    if stage in ("reward", "judge"):
        config = shapes.source_config(params.source, base, f"{stage}.model_name_or_path")
    of = shapes.shape(stage, config, "policy" if stage in ("sft", "dpo") else "reward", params)
    max_length = sections["reference"].max_length if stage == "dpo" else params.max_length
    data, sides = data_of(stage, max_length), 2 if stage in PAIRS else 1
    rows = params.per_device_train_batch_size * sides
    batch = memory.Batch(rows, data.longest, rows * data.longest // 2)
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
    typical = memory.Batch(rows, mean, rows * mean // 2)
    advice = advise(stage, params, compute, batch.rows > sides)
    return Planned(stage, of.trained, of.parameters, parts, tokens, 0, flops, advice, data.assumed, typical, steps)


def plan_ppo(sections: Mapping[str, Any], base: Any, compute: Compute) -> Planned:
    """ppo, with all the models that it holds; responses are taken to fill `response_length`."""
    from rlhf_lib.plan import shapes, speed
    from rlhf_lib.scoring.source import parse
    from rlhf_lib.training import memory

    params = sections["ppo"]
    compute = dataclasses.replace(compute, checkpointing=False)  # PPO keeps its activations
    reward = shapes.source_config(sections["reward"].source, base, "reward.model_name_or_path")
    policy = shapes.shape("ppo", base, "policy", params)
    critic = None if params.critic == "shared" else shapes.shape("ppo", reward, "trunk", critic_params(params))
    frozen = [] if params.lora_r else [shapes.shape("ppo", base, "policy", None)]
    for source in map(parse, params.reward_funcs):
        if source.kind != "function":
            own = source.kind == "directory" and source.location == "models/reward"
            config = reward if own else shapes.source_config(source, base, "ppo.reward_funcs")
            frozen.append(shapes.shape("ppo", config, "reward", None))
    context = getattr(base, "max_position_embeddings", None) or sections["sft"].max_length
    room = max(8, min(context, sections["sft"].max_length) - params.response_length)
    data = data_of("ppo", room)
    batch, rollout = ppo_batch(params, data.longest)
    micro = params.minibatch_size // params.per_device_train_batch_size
    parts = memory.ppo_peak(policy, critic, frozen, batch, rollout, compute, micro, _bits(params))
    responses = params.total_rollouts * params.rollout_batch_size
    sampled = responses * params.response_length
    width = data.mean + params.response_length
    tokens = responses * width
    learning = speed.training_flops(policy, tokens, sampled, width, compute)
    learning += speed.training_flops(critic, tokens, 0, width, compute) if critic else 0
    models = (policy, *([critic] if critic else []), *frozen)
    # once more forwards, of all models, for log-probs, values and rewards
    scoring = sum(speed.forward_flops(model, tokens, sampled, width) for model in models)
    flops = learning * params.num_ppo_epochs + scoring + speed.forward_flops(policy, tokens, sampled, width)
    trained = policy.trained + (critic.trained if critic else 0)
    everything = sum(model.parameters for model in models)
    advice = advise("ppo", params, compute, params.per_device_train_batch_size > 1)
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


def ppo_batch(params: Any, prompt: int) -> tuple[Batch, Rollout]:
    """A forward pass and the rows that are sampled at once, with prompts of so many tokens."""
    from rlhf_lib.training.memory import Batch, Rollout

    rows, response = params.per_device_train_batch_size, params.response_length
    return (
        Batch(rows, prompt + response, rows * response),
        Rollout(params.rollout_batch_size, prompt, response),
    )


def _bits(params: Any) -> int | None:
    return 4 if params.load_in_4bit else 8 if params.load_in_8bit else None


def advise(stage: str, params: Any, compute: Compute, has_rows: bool) -> str:
    """What to change where the stage does not fit, the cheapest first."""
    from rlhf_lib.models import hardware

    ways = []
    if has_rows:
        more = "" if stage == "ppo" else f" with {stage}.gradient_accumulation_steps raised by as much"
        ways.append(f"a smaller {stage}.per_device_train_batch_size{more}")
    if not compute.checkpointing and stage != "ppo":
        ways.append("compute.gradient_checkpointing: true")
    if stage == "ppo" and params.critic == "separate":
        ways.append("ppo.critic: shared")
    if params.lora_r is None:
        ways.append(f"{stage}.lora_r: 16")
    if hardware.device().type == "cuda" and not params.is_quantized:
        ways.append(f"{stage}.load_in_4bit: true")
    return ", ".join(ways) or "a smaller model"


def plans(params: Mapping[str, Any]) -> list[Planned]:
    """The plan of every stage that trains, libraries not counted; a `ParamsError` for what is not at hand."""
    from rlhf_lib.plan import shapes

    sections: dict[str, Any] = {
        name: check(SECTIONS[name], params[name], name) for name in (*STAGES, "compute", "base", "reference")
    }
    compute, base = compute_of(sections["compute"]), shapes.base_config(sections["base"])
    trainers = [plan_trainer(stage, sections, base, compute) for stage in STAGES if stage != "ppo"]
    return [*trainers, plan_ppo(sections, base, compute)]


# ---- what is there


def free_bytes() -> float:
    """Memory that the device could still give: a GPU's own, else the system's (`MemAvailable`, or all there is)."""
    import torch

    from rlhf_lib.models import hardware

    if hardware.device().type == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return next(int(line.split()[1]) * 1024.0 for line in lines if line.startswith("MemAvailable"))


# ---- the page


def number(value: float) -> str:
    """Three digits, with k, M, G, T or P."""
    for unit in ("", "k", "M", "G", "T"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}P"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 300:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def table(planned: Sequence[Planned], seconds: Sequence[float | None]) -> str:
    """One line a stage, at most 120 columns; memory in MiB."""
    titles = ("stage", "trained", "of", "weights", "grads", "optim", "activ", "cache", "libs", "MiB", "tokens",
              "sampled", "FLOP", "time")  # fmt: skip
    rows: list[tuple[str, ...]] = [titles]
    for plan, took in zip(planned, seconds, strict=True):
        parts = plan.parts
        sizes = (*dataclasses.astuple(parts)[1:], parts.libraries, parts.total)
        counts = (number(plan.tokens), number(plan.sampled), number(plan.flops), duration(took))
        memory = (f"{size / 2**20:.0f}" for size in sizes)
        rows.append((plan.stage, number(plan.trained), number(plan.parameters), *memory, *counts))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def warnings(planned: Sequence[Planned], free: float) -> list[str]:
    """One line for each stage that does not fit, with what to change."""
    return [
        f"{plan.stage} does not fit: {plan.parts.total / GIB:.1f} GiB of {free / GIB:.1f} GiB; try {plan.advice}"
        for plan in planned
        if plan.parts.total > free
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rlhf_lib.plan", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--no-measure", action="store_true", help="no measurement, and so no times")
    arguments = parser.parse_args()
    params = load_yaml(PARAMS_FILE)
    check_all(params)
    environment.prepare()
    from rlhf_lib.models import hardware
    from rlhf_lib.plan import speed
    from rlhf_lib.training import memory

    hardware.use(check(SECTIONS["compute"], params["compute"], "compute"))
    planned = plans(params)
    device = hardware.device()
    free = free_bytes()
    planned = [
        dataclasses.replace(plan, parts=memory.in_process(plan.parts, device.type, plan.decoding_steps))
        for plan in planned
    ]
    batches = {plan.stage: plan.batch for plan in planned}
    rates = speed.NO_RATES if arguments.no_measure else speed.measure(params, free, batches)
    seconds = [rates.seconds(plan.stage, plan.flops, plan.sampled, plan.optimizer_steps) for plan in planned]
    print(f"On one {device.type}, {hardware.precision()}, {free / GIB:.1f} GiB free; memory at the peak in MiB:\n")
    print(table(planned, seconds) + "\n")
    if any(plan.assumed for plan in planned):
        print(f"No data yet (make data): {ASSUMED_ROWS} rows or pairs of the greatest length are assumed.")
    print(
        f"Lengths are characters / {CHARACTERS}. FLOP: 6 a weight and token (4 if frozen, 2 forwards), and attention.\n"
        "Validation is in them, but for PPO's."
    )
    print("Tokens, FLOP and time are of all processes together, memory is of one.")
    for line in warnings(planned, free):
        print(line)


if __name__ == "__main__":
    main()
