"""What a stage does one after the other, and what each phase holds at most; the stage's peak is the greatest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf_lib.plan import memory
from rlhf_lib.plan.memory import Parts, RolloutSize, added, held, reading
from rlhf_lib.training.memory import FP32, Compute, ForwardPass, ModelShape

ANSWERS = 2  # of a pair


@dataclass(frozen=True)
class Phase:
    """name: what is done. param: the one that says how many `rows` a forward pass has, as it counts them."""

    name: str
    param: str
    rows: int
    parts: Parts


def bits(params: Any) -> int | None:
    """In how many bits bitsandbytes holds the weights that are not trained; None where it does not."""
    return 4 if params.load_in_4bit else 8 if params.load_in_8bit else None


def in_fp32(compute: Compute) -> Compute:
    """How scores and the evaluation are computed, whatever the training is."""
    return dataclasses.replace(compute, value=FP32)


def of_trainer(
    stage: str, params: Any, of: ModelShape, batch: ForwardPass, compute: Compute, sides: int
) -> tuple[Phase, ...]:
    """sft, reward, judge, dpo, rft and kto: updates by `batch`, validation, and what measures the trained model; of sft
    and rft, the model that was written, or the one before, is there beside it then; of kto, the reference's log-probs.
    sides: rows of what a batch size counts."""
    rows, param = params.per_device_eval_batch_size, f"{stage}.per_device_eval_batch_size"
    labelled = batch.labelled * rows * sides // batch.rows
    validation = ForwardPass(rows * sides, batch.width, labelled)
    always = added(held(of, bits(params)), memory.kept(of, compute))
    update = memory.training_peak(of, batch, compute, params.gradient_accumulation_steps, bits(params))
    found = [
        Phase("update", f"{stage}.per_device_train_batch_size", params.per_device_train_batch_size, update),
        Phase("validation", param, rows, added(always, reading(of, validation, compute))),
    ]
    if stage == "kto":
        size = params.precompute_ref_batch_size
        reference = ForwardPass(size, batch.width, batch.labelled * size // batch.rows)
        parts = added(Parts(weights=memory.weight_bytes(of, bits(params))), reading(of, reference, compute))
        found.append(Phase("log-probs", "kto.precompute_ref_batch_size", size, parts))
    elif stage != "dpo":
        answers_alone = stage in ("sft", "rft")
        again = Parts(weights=memory.weight_bytes(of) if answers_alone else 0.0)
        answers = validation if answers_alone else dataclasses.replace(validation, rows=ANSWERS * rows)
        measured = added(always, again, reading(of, answers, in_fp32(compute)))
        found.append(Phase("token loss" if answers_alone else "scoring", param, rows, measured))
    return tuple(found)


def of_reference(
    params: Any, of: ModelShape, quantized_bits: int | None, width: int, answer: int, compute: Compute
) -> tuple[Phase, ...]:
    """reference: forward passes of one answer of each pair, in rows of so many tokens."""
    rows = params.precompute_ref_batch_size
    batch = ForwardPass(rows, width, rows * answer)
    parts = added(Parts(weights=memory.weight_bytes(of, quantized_bits)), reading(of, batch, compute))
    return (Phase("log-probs", "reference.precompute_ref_batch_size", rows, parts),)


def of_ppo(
    params: Any,
    always: Parts,
    models: tuple[ModelShape, ModelShape | None, Sequence[ModelShape]],
    prompt: int,
    compute: Compute,
) -> tuple[Phase, ...]:
    """ppo: sampling, rewards, updates and the evaluations' log-probs, with prompts of so many tokens; responses are
    taken to fill `response_length`. A rollout's own log-probs need less than the updates in the same batches.

    models: the policy, its critic where that has a trunk of its own, and the reward models.
    """
    policy, critic, rewards = models
    batch, rollout = ppo_batch(params, prompt)
    always = added(always, memory.kept(policy, compute))
    micro = params.minibatch_size // params.per_device_train_batch_size
    update = memory.update_parts([policy, critic] if critic else [policy], batch, compute, micro)
    size = dataclasses.replace(rollout, rows=params.forward_batch_size)
    forward = "local_rollout_forward_batch_size" if params.local_rollout_forward_batch_size else None
    measured = f"ppo.{forward or 'per_device_train_batch_size'}"
    sampled = f"ppo.{'generation' if params.generation_batch_size else 'rollout'}_batch_size"
    found = [
        ("update", "ppo.per_device_train_batch_size", batch.rows, update),
        ("sampling", sampled, rollout.rows, memory.sampling_peak(policy, rollout, compute)),
        *[("rewards", measured, size.rows, reading(of, size.whole, in_fp32(compute))) for of in rewards],
        ("evaluation", measured, size.rows, reading(policy, size.whole, compute)),
    ]
    return tuple(Phase(name, param, rows, added(always, parts)) for name, param, rows, parts in found)


def ppo_batch(params: Any, prompt: int) -> tuple[ForwardPass, RolloutSize]:
    """A forward pass and the rows that are sampled at once, with prompts of so many tokens."""
    rows, response = params.per_device_train_batch_size, params.response_length
    answers = max(params.rollout_batch_size, params.max_eval_prompts or params.rollout_batch_size)
    return (
        ForwardPass(rows, prompt + response, rows * response),
        RolloutSize(min(params.sampled_at_once, answers), prompt, response, _sorts(params)),
    )


def _sorts(params: Any) -> bool:
    return params.top_p < 1 and params.top_k == 0


def of_sampling(section: str, params: Any, of: ModelShape, prompt: int, compute: Compute) -> Phase:
    """Answers of a model in batches of `per_device_eval_batch_size`, and of its beams where they are searched."""
    rows, beams = params.per_device_eval_batch_size, 1
    if section == "evaluate" and 0 in params.temperatures:
        beams = params.num_beams
    size = RolloutSize(rows * beams, prompt, params.max_new_tokens, _sorts(params))
    return Phase(
        "sampling", f"{section}.per_device_eval_batch_size", rows, memory.sampling_peak(of, size, in_fp32(compute))
    )


def of_candidates(
    sections: Mapping[str, Any], policy: ModelShape, reward: ModelShape, prompt: int, compute: Compute
) -> tuple[Phase, ...]:
    """candidates: the SFT model, which samples, and the reward model."""
    params, compute = sections["candidates"], in_fp32(compute)
    always = Parts(weights=memory.weight_bytes(policy) + memory.weight_bytes(reward))
    size = RolloutSize(params.per_device_eval_batch_size, prompt, params.max_new_tokens)
    sampling = of_sampling("candidates", params, policy, prompt, compute)
    return _beside(always, sampling, *_of_scoring(sections, {"reward": reward}, size, compute))


def of_evaluate(
    sections: Mapping[str, Any], policy: ModelShape, scorers: Mapping[str, ModelShape], prompt: int, compute: Compute
) -> tuple[Phase, ...]:
    """evaluate: policy, SFT model, reward model and judge are all there. best_of_n and overoptimisation hold less."""
    params, compute = sections["evaluate"], in_fp32(compute)
    always = Parts(weights=sum(memory.weight_bytes(of) for of in (policy, policy, *scorers.values())))
    size = RolloutSize(params.per_device_eval_batch_size, prompt, params.max_new_tokens)
    sampling = of_sampling("evaluate", params, policy, prompt, compute)
    logprobs = dataclasses.replace(sampling, name="log-probs", parts=reading(policy, size.whole, compute))
    return _beside(always, sampling, logprobs, *_of_scoring(sections, scorers, size, compute))


def of_attainable(
    sections: Mapping[str, Any], policy: ModelShape, scorers: Mapping[str, ModelShape], prompt: int, compute: Compute
) -> tuple[Phase, ...]:
    """attainable: the SFT model, which samples as PPO does, reward model and judge. attained holds less."""
    rows, compute = sections["attainable"].per_device_eval_batch_size, in_fp32(compute)
    ppo = sections["ppo"]
    always = Parts(weights=sum(memory.weight_bytes(of) for of in (policy, *scorers.values())))
    size = RolloutSize(rows, prompt, ppo.response_length, _sorts(ppo))
    parts = memory.sampling_peak(policy, size, compute)
    sampling = Phase("sampling", "attainable.per_device_eval_batch_size", rows, parts)
    return _beside(always, sampling, *_of_scoring(sections, scorers, size, compute))


def _of_scoring(
    sections: Mapping[str, Any], scorers: Mapping[str, ModelShape], size: RolloutSize, compute: Compute
) -> Iterator[Phase]:
    for name, of in scorers.items():
        rows = sections[name].per_device_eval_batch_size
        batch = dataclasses.replace(size.whole, rows=ANSWERS * rows)
        yield Phase("scoring", f"{name}.per_device_eval_batch_size", rows, reading(of, batch, compute))


def _beside(always: Parts, *found: Phase) -> tuple[Phase, ...]:
    """Phases with what is there in all of them."""
    return tuple(dataclasses.replace(phase, parts=added(always, phase.parts)) for phase in found)
