"""What each stage will need: parameters, memory by part and phase, tokens and FLOPs, from params and data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rlhf_lib.common import paths
from rlhf_lib.common.policies import TRAINERS, section
from rlhf_lib.data.lengths import Lengths
from rlhf_lib.models.loading import context_of
from rlhf_lib.plan import memory, phases, shapes, speed
from rlhf_lib.plan.data import VALIDATION, data_of, of_chosen, rows_in, validation_tokens, validations
from rlhf_lib.plan.device import Device
from rlhf_lib.plan.memory import Parts
from rlhf_lib.plan.phases import Phase, ppo_batch
from rlhf_lib.scoring.source import parse
from rlhf_lib.training.memory import Compute, ForwardPass, ModelShape, wants_checkpointing

PAIRS = ("reward", "judge", "dpo")


@dataclass(frozen=True)
class Planned:
    """What is known of a stage before it runs. `tokens` go through the model in training, `sampled` are decoded.

    `batch`: a forward pass in training, of rows of the mean length, None where nothing is trained; `optimizer_steps`
    are all, `decoding_steps` those of one rollout.
    """

    stage: str
    trained: int
    parameters: int
    phases: tuple[Phase, ...]
    advice: str
    assumed: bool
    tokens: float = 0.0
    sampled: float = 0.0
    flops: float = 0.0
    batch: ForwardPass | None = None
    optimizer_steps: float = 0.0
    decoding_steps: int = 0

    @property
    def peak(self) -> Phase:
        """The phase that holds most."""
        return max(self.phases, key=lambda phase: phase.parts.total)

    @property
    def parts(self) -> Parts:
        """What is held at the peak."""
        return self.peak.parts

    def in_process(self, kind: str) -> Planned:
        """With what a process on such a device holds besides."""
        held = (memory.in_process(phase.parts, kind, self.decoding_steps) for phase in self.phases)
        of_phases = zip(self.phases, held, strict=True)
        return dataclasses.replace(
            self, phases=tuple(dataclasses.replace(phase, parts=parts) for phase, parts in of_phases)
        )


@dataclass(frozen=True)
class Run:
    """What every stage's plan is made of."""

    sections: Mapping[str, Any]
    base: Any  # the base model's config
    device: Device
    compute: Compute
    length: Lengths

    def reward_config(self, stage: str) -> Any:
        """The config of the model that reward or judge starts from."""
        return shapes.source_config(self.sections[stage].source, self.base, f"{stage}.model_name_or_path")

    def prompts(self, response: int) -> Any:
        """Lengths of the prompts beside which so many new tokens have room."""
        most = self.sections["sft"].max_length
        room = max(8, (context_of(self.base) or most) - response)
        assumed = self.sections["prepare"].max_prompt_tokens or max(8, most - response)
        return data_of("ppo", room, self.length, assumed)


def checkpoints(of: ModelShape, batch: ForwardPass, run: Run) -> Compute:
    """How a stage computes that decides on `compute.gradient_checkpointing` itself where the params do not, as
    `training.trainer.set_checkpointing` does on a GPU."""
    if run.sections["compute"].gradient_checkpointing is not None or run.device.kind != "cuda":
        return run.compute
    checkpointing = wants_checkpointing(of, batch, run.compute, run.device.total)
    return dataclasses.replace(run.compute, checkpointing=checkpointing)


def plan_trainer(stage: str, run: Run) -> Planned:
    """sft, reward, judge, dpo, or rft and its control."""
    sections, name = run.sections, section(stage)
    params = sections[name]
    scores = stage in ("reward", "judge")
    of = shapes.shape(name, run.reward_config(stage) if scores else run.base, "reward" if scores else "policy", params)
    max_length = sections["reference"].max_length if stage == "dpo" else params.max_length
    if name == "rft":
        candidates = sections["candidates"]
        data = of_chosen(stage, max_length, run.length, run.prompts(candidates.max_new_tokens), candidates)
    else:
        data = data_of(stage, max_length, run.length, longest_row(sections["prepare"]))
    sides = 2 if stage in PAIRS else 1
    rows = params.per_device_train_batch_size * sides
    compute = checkpoints(of, ForwardPass(rows, max_length, rows * max_length), run)
    batch = ForwardPass(rows, data.longest, rows * data.longest // 2)
    step_rows = params.per_device_train_batch_size * params.gradient_accumulation_steps
    steps = params.max_steps if params.max_steps > 0 else data.rows * params.num_train_epochs / step_rows
    seen = steps * step_rows
    tokens = seen * sides * data.mean
    flops = speed.training_flops(of, tokens, tokens / 2, data.mean, compute)
    validated = validations(params, steps, data.rows) * rows_in(VALIDATION[stage]) * sides * data.mean
    flops += speed.forward_flops(of, validated, validated / 2, data.mean)
    if stage == "kto":  # answers to other prompts too, in each step and by the reference
        read = tokens + 2 * data.rows * data.mean
        flops += speed.forward_flops(of, read, read / 2, data.mean)
    mean = max(8, round(data.mean))
    planned = Planned(
        stage,
        of.trained,
        of.parameters,
        phases.of_trainer(name, params, of, batch, compute, sides),
        "",
        data.assumed,
        tokens,
        0,
        flops,
        ForwardPass(rows, mean, rows * mean // 2),
        steps,
    )
    return dataclasses.replace(planned, advice=advise(planned, params, compute, run.device))


def longest_row(prepare: Any) -> int | None:
    """The most tokens of prompt and answer that stage prepare lets through; None where it does not bound them."""
    bounds = prepare.max_prompt_tokens, prepare.max_response_tokens
    return sum(bounds) if None not in bounds else None


def plan_ppo(run: Run) -> Planned:
    """ppo, with all the models that it holds; responses are taken to fill `response_length`."""
    params = run.sections["ppo"]
    reward = run.reward_config("reward")
    policy = shapes.shape("ppo", run.base, "policy", params)
    critic = shapes.shape("ppo", reward, "trunk", critic_params(params)) if params.has_own_critic else None
    rewards = []
    for source in map(parse, params.reward_funcs):
        if source.kind != "function":
            own = source.kind == "directory" and source.location == paths.REWARD
            config = reward if own else shapes.source_config(source, run.base, "ppo.reward_funcs")
            rewards.append(shapes.shape("ppo", config, "reward", None))
    frozen = rewards if params.lora_r else [shapes.shape("ppo", run.base, "policy", None), *rewards]
    data = run.prompts(params.response_length)
    always = memory.ppo_holds(policy, critic, frozen, phases.bits(params))
    compute = checkpoints(policy, ppo_batch(params, data.longest)[0], run)
    responses = params.total_rollouts * params.rollout_batch_size
    rolled_out = responses * params.response_length
    width = data.mean + params.response_length
    tokens = responses * width
    models = (policy, *([critic] if critic else []), *frozen)
    planned = Planned(
        "ppo",
        policy.trained + (critic.trained if critic else 0),
        sum(model.parameters for model in models),
        phases.of_ppo(params, always, (policy, critic, rewards), data.longest, compute),
        "",
        data.assumed,
        tokens * params.num_ppo_epochs,
        rolled_out + validation_tokens(params),
        ppo_flops(params, (policy, critic, frozen), tokens, rolled_out, width, compute),
        ppo_batch(params, max(8, round(data.mean)))[0],
        params.total_rollouts * params.steps_per_rollout,
        params.response_length,
    )
    return dataclasses.replace(planned, advice=advise(planned, params, compute, run.device))


def ppo_flops(params: Any, models: Any, tokens: float, rolled_out: float, width: float, compute: Compute) -> float:
    """Of all epochs; of one more forward pass of all models, for log-probs, values and rewards; and of the sampling."""
    policy, critic, frozen = models
    learning = speed.training_flops(policy, tokens, rolled_out, width, compute)
    learning += speed.training_flops(critic, tokens, 0, width, compute) if critic else 0
    read = (policy, *([critic] if critic else []), *frozen)
    scoring = sum(speed.forward_flops(model, tokens, rolled_out, width) for model in read)
    return learning * params.num_ppo_epochs + scoring + speed.forward_flops(policy, tokens, rolled_out, width)


def critic_params(params: Any) -> Any:
    """What of a critic of its own is trained: all of it, or adapters."""
    return (
        params
        if params.critic == "lora"
        else dataclasses.replace(params, lora_r=None, freeze=[], load_in_8bit=False, load_in_4bit=False)
    )


def plan_readers(run: Run) -> Iterator[Planned]:
    """The stages that only read or sample: reference, negatives where a model is named for it, candidates where rft is
    wanted, evaluate, attainable."""
    sections = run.sections
    policy = shapes.shape("sft", run.base, "policy", None)
    data = data_of("dpo", sections["reference"].max_length, run.length, longest_row(sections["prepare"]))
    found = phases.of_reference(
        sections["reference"], policy, phases.bits(sections["dpo"]), data.longest, data.longest // 2, run.compute
    )
    yield _reader("reference", policy.parameters, found, data.assumed)
    negatives = sections["negatives"]
    if negatives.model_name_or_path is not None:
        source = parse(negatives.model_name_or_path)
        config = shapes.source_config(source, run.base, "negatives.model_name_or_path")
        of, prompts = shapes.shape("sft", config, "policy", None), run.prompts(negatives.max_new_tokens)
        sampling = phases.of_sampling("negatives", negatives, of, prompts.longest, run.compute)
        always = memory.Parts(weights=memory.weight_bytes(of))
        sampling = dataclasses.replace(sampling, parts=memory.added(always, sampling.parts))
        yield _reader("negatives", of.parameters, (sampling,), prompts.assumed, negatives.max_new_tokens)
    scorers = {name: shapes.shape(name, run.reward_config(name), "reward", None) for name in ("reward", "judge")}
    if sections["methods"].rft:
        new_tokens = sections["candidates"].max_new_tokens
        prompts = run.prompts(new_tokens)
        found = phases.of_candidates(sections, policy, scorers["reward"], prompts.longest, run.compute)
        total = policy.parameters + scorers["reward"].parameters
        yield _reader("candidates", total, found, prompts.assumed, new_tokens)
    new_tokens = sections["evaluate"].max_new_tokens
    prompts = run.prompts(new_tokens)
    found = phases.of_evaluate(sections, policy, scorers, prompts.longest, run.compute)
    total = 2 * policy.parameters + sum(of.parameters for of in scorers.values())
    yield _reader("evaluate", total, found, prompts.assumed, new_tokens)
    if sections["attainable"].n:
        new_tokens = sections["ppo"].response_length
        prompts = run.prompts(new_tokens)
        found = phases.of_attainable(sections, policy, scorers, prompts.longest, run.compute)
        yield _reader("attainable", total - policy.parameters, found, prompts.assumed, new_tokens)


def _reader(stage: str, parameters: int, found: tuple[Phase, ...], assumed: bool, steps: int = 0) -> Planned:
    planned = Planned(stage, 0, parameters, found, "", assumed, decoding_steps=steps)
    return dataclasses.replace(planned, advice=smaller(planned.peak) or "a smaller model")


def smaller(peak: Phase) -> str | None:
    """The way to a smaller forward pass; None where it has but a row."""
    return f"a smaller {peak.param}" if peak.rows > 1 else None


def advise(planned: Planned, params: Any, compute: Compute, device: Device) -> str:
    """What to change where the stage does not fit, the cheapest first."""
    stage, peak = section(planned.stage), planned.peak
    ways = []
    if way := smaller(peak):
        of_step = peak.name == "update" and stage != "ppo"
        ways.append(f"{way} with {stage}.gradient_accumulation_steps raised by as much" if of_step else way)
    if peak.param == "ppo.rollout_batch_size":
        ways[:1] = ["a ppo.generation_batch_size below ppo.rollout_batch_size, which is sampled at once"]
    if peak.name == "update" and not compute.checkpointing:
        ways.append("compute.gradient_checkpointing: true")
    if stage == "ppo" and params.critic == "separate":
        ways.append("ppo.critic: shared")
    if params.lora_r is None:
        ways.append(f"{stage}.lora_r: 16")
    if device.kind == "cuda" and not params.is_quantized:
        ways.append(f"{stage}.load_in_4bit: true")
    return ", ".join(ways) or "a smaller model"


def plans(sections: Mapping[str, Any], length: Lengths, device: Device | None = None) -> list[Planned]:
    """The plan of every stage that runs a model, with what a process holds besides: first of those that train.

    device: where they run; None for this machine. A `ParamsError` for what is not at hand.
    """
    device = device or Device.here()
    run = Run(sections, shapes.base_config(sections["base"]), device, device.compute(sections["compute"]), length)
    wanted = [stage for stage in TRAINERS if getattr(sections["methods"], stage, True)]
    trainers = [plan_ppo(run) if stage == "ppo" else plan_trainer(stage, run) for stage in wanted]
    return [plan.in_process(device.kind) for plan in (*trainers, *plan_readers(run))]
